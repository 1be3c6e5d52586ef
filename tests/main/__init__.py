"""The whole pipeline, as a user runs it, against a real tracking server: once cold, then what comes after."""
