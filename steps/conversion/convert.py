"""Convert a checkpoint folder to a folder that ONNX Runtime GenAI loads."""

import contextlib
import importlib.metadata
import json
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from steps.conversion.options import parse_options

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda")
_PACKAGES = (*RUNTIMES, "torch", "transformers", "onnx", "onnx-ir", "optimum", "optimum-onnx")


def convert(folder: Path, out: Path, exporter: str, precision: str, options: str, device: str) -> dict[str, Any]:
    """Write `out`: the graph, its weights, genai_config.json and the tokenizer's files.

    Args:
        folder: a transformers checkpoint. Its name must not matter: it is not recorded.
        options: builder options as `k=v,...`, checked by options.check_choice.

    Returns:
        exporter, precision, device, options, versions, seconds, and peak_rss_bytes, the process's own high-water mark.
    """
    started = time.monotonic()
    chosen = parse_options(exporter, options)
    if exporter == "genai":
        _build(folder, out, precision, device, [f"{key}={value}" for key, value in chosen.items()])
    else:
        _export(folder, out, precision, device, chosen)
    return {
        "exporter": exporter,
        "precision": precision,
        "device": device,
        "options": chosen,
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


def _build(folder: Path, out: Path, precision: str, device: str, options: list[str]) -> None:
    from onnxruntime_genai.models import builder

    cache = out.parent / "builder-cache"
    where = ("", str(folder), str(out), precision, device, str(cache))
    builder.create_model(*where, **builder.parse_extra_options(*where, options))


def _export(folder: Path, out: Path, precision: str, device: str, options: dict[str, str]) -> None:
    """optimum's graph, with the genai_config.json that the builder writes for a graph that exists already.

    optimum's graph takes position_ids and does not share its KV buffers, which that file must say.
    """
    from optimum.exporters.onnx import main_export

    main_export(
        str(folder),
        str(out),
        task="text-generation-with-past",
        device=device,
        dtype=precision,
        opset=int(options["opset"]) if "opset" in options else None,
        do_validation=False,  # checked below with the runtime that will run it
    )
    _build(folder, out, precision, device, ["config_only=true"])
    path = out / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["inputs"]["position_ids"] = "position_ids"
    config["search"]["past_present_share_buffer"] = False
    path.write_text(json.dumps(config, indent=4), encoding="utf-8")
