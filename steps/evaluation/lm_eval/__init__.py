"""Tasks of lm-evaluation-harness (lm-eval) on a logged model."""
