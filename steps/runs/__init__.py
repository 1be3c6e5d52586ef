"""The life of a step's run, its inputs, its reuse, its child runs and remote runs."""
