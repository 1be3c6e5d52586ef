"""What knows nothing of models: errors, disk space."""
