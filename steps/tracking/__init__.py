"""Runs, the hand-off between steps, and step reuse: the only package that touches MLflow runs."""
