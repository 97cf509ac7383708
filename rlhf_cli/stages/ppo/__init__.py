"""Step 3, PPO. Read stage.py, models.py, loop.py, rollout.py, update.py, then core/losses.py."""
