"""RAFT: rounds of sampling, keeping what the reward model prefers, and SFT on that (2304.06767)."""
