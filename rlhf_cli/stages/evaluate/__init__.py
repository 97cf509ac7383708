"""The evaluation: all policies and best-of-n on the same held-out prompts, measured in parts."""
