"""Evaluation: what a model answers, how fast, in how much memory, and whether that is good enough."""
