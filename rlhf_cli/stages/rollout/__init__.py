"""What the methods that learn from their own samples share: models, rollouts, checks, updates."""
