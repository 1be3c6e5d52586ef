"""Checkpoints: where they come from, what is in them, and whether they are what they were."""
