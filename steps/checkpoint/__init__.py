"""Checkpoints: find and fetch them, describe and check them, verify their files, and merge LoRA adapters."""
