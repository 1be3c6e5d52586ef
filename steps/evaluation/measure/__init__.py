"""Measure models: speed, memory, answers, fidelity."""
