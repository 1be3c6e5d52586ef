"""Judge models: gates and promotion."""
