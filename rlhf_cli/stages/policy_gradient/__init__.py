"""REINFORCE, RLOO and GRPO. Read stage.py, loop.py, groups.py, update.py, then core/baselines.py."""
