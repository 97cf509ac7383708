"""What the workers run: a file or folder per stage, and what the stages share."""
