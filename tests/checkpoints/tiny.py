"""Where the shipped checkpoint comes from, for tests that describe it without a fetch_model run."""

from steps.checkpoint.manifest import Origin

ORIGIN = Origin(kind="folder", location="params/tiny-phi3", name="tiny-phi3", commit="")
