"""Registered models: names, versions, aliases."""
