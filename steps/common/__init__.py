"""Helpers that know nothing of models: errors, disk space, typed documents, hashing, packages, this process."""
