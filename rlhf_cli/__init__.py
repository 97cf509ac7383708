"""RLHF on the command line: SFT, reward model, PPO, and their evaluation."""

__version__ = "0.1.0"
