"""Versions of the packages that are installed in this environment."""

import contextlib
import importlib.metadata
from collections.abc import Iterable

# The distributions of ONNX Runtime and ONNX Runtime GenAI. A CPU environment has two of them, a GPU environment others.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda")


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package that is installed. Packages that are not installed are left out."""
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
