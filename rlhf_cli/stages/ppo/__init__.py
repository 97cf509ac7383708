"""Step 3, PPO. Read stage.py, loop.py, collect.py, learn.py, core/losses.py; guards.py refuses."""
