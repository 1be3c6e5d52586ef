"""Convert a checkpoint folder to a folder that ONNX Runtime GenAI loads."""

import contextlib
import importlib.metadata
import resource
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from steps.conversion.options import parse_options

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda")
_PACKAGES = (*RUNTIMES, "torch", "transformers", "onnx", "onnx-ir", "optimum", "optimum-onnx")


def convert(
    folder: Path,
    out: Path,
    exporter: str,
    precision: str,
    options: str,
    device: str,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """Write `out`: the graph, its weights, genai_config.json and the tokenizer's files. It appears whole or not at all.

    Args:
        folder: a transformers checkpoint. Its name must not matter: it is not recorded.
        options: builder options as `k=v,...`, checked by options.check_choice.
        progress: told the number of the checkpoint's bytes that are converted, as they are; by genai's streaming only.

    Returns:
        exporter, precision, device, options, limits, longrope_switch, versions, seconds, and peak_rss_bytes, the
        process's own high-water mark, mapped files included.

    Raises:
        StepError: the weights are not what config.json says, or the exporter cannot convert such a model.
    """
    from steps.conversion.builder import build
    from steps.conversion.optimum_export import export
    from steps.conversion.runtime_limits import known_limits, longrope_switch

    started = time.monotonic()
    chosen = parse_options(exporter, options)
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    if exporter == "genai":
        build(folder, aside, precision, device, chosen, progress)
    else:
        export(folder, aside, precision, device, chosen)
    aside.rename(out)
    return {
        "exporter": exporter,
        "precision": precision,
        "device": device,
        "options": chosen,
        "limits": known_limits(folder),
        "longrope_switch": longrope_switch(folder),
        "versions": installed_versions(_PACKAGES),
        "seconds": round(time.monotonic() - started, 2),
        "peak_rss_bytes": peak_rss(),
    }


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Distribution -> version, of those that are installed: a GPU environment has others than a CPU one."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def peak_rss() -> int:
    """The process's largest resident set so far, bytes: VmHWM, since ru_maxrss begins at the parent's on Linux."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # macOS, where getrusage counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
