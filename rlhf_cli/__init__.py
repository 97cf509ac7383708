"""RLHF on the command line: SFT, reward model, PPO, and what was gained."""

__version__ = "0.1.0"
