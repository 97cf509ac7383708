"""Step 3, PPO. Reading order: stage.py, loop.py, collect.py, learn.py, core/losses.py; guards.py refuses."""
