"""Continuous batching: any number of callers, one thread that runs the graph."""
