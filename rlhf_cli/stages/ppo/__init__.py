"""Step 3, PPO. Read stage.py, loop.py, rollout.py, update.py, core/losses.py; checks.py refuses."""
