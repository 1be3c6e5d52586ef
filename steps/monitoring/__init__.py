"""Watching a served model: its traces are scored, and compared with its evaluation."""
