"""The entry points of the MLflow Project, one module each, and the packages that hold their logic."""
