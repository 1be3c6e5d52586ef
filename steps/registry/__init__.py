"""Registered models: their names, their versions, their aliases."""
