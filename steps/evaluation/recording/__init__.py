"""The part of an evaluation that talks to the tracking server."""
