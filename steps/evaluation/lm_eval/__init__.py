"""Run lm-evaluation-harness on logged models."""
