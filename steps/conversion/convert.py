"""Convert a checkpoint folder to a folder that ONNX Runtime GenAI loads."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from steps.common.packages import RUNTIMES, installed_versions
from steps.common.process import peak_rss
from steps.conversion.options import ConversionOptions

SEPARATE_EMBEDDING = "the tied embedding is a matrix of its own"
_PACKAGES = (*RUNTIMES, "torch", "transformers", "onnx", "onnx-ir", "optimum", "optimum-onnx")


@dataclass(frozen=True)
class ConversionFacts:
    """What a conversion says about the model, and what it cost."""

    notes: tuple[str, ...]  # what the conversion did otherwise than its options say, in words
    limits: tuple[str, ...]  # known limits of ONNX Runtime GenAI with this model, in words
    longrope_switch: int  # tokens after which LongRoPE's long factors hold; 0 where there is no switch
    versions: dict[str, str]  # package -> version
    seconds: float
    peak_rss_bytes: int  # of this process, mapped files included


def convert(
    folder: Path,
    out: Path,
    choice: ConversionOptions,
    progress: Callable[[int], object] = lambda count: None,
) -> ConversionFacts:
    """Write the graph, its weights, genai_config.json and the tokenizer's files to the folder `out`.

    `out` appears only when it is complete.

    Args:
        folder: a transformers checkpoint. The name of the folder is not recorded.
        progress: called with the number of checkpoint bytes of each piece that was converted. Only the streaming
            conversion calls it.

    Raises:
        StepError: the weights contradict config.json, or the exporter cannot convert this model.
    """
    # These imports load torch and onnx, which takes seconds. Checking the parameters must not wait for them.
    from steps.checkpoint.longrope import longrope_switch
    from steps.conversion.builder import build, separate_embedding_cause
    from steps.conversion.optimum_export import export
    from steps.conversion.runtime_limits import known_limits

    started = time.monotonic()
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if choice.exporter == "genai":
        build(folder, partial, choice, progress)
    else:
        export(folder, partial, choice)
    partial.rename(out)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    cause = separate_embedding_cause(choice.options, choice.precision, config) if choice.exporter == "genai" else ""
    return ConversionFacts(
        notes=(f"{SEPARATE_EMBEDDING}, because onnxruntime-genai cannot share it with {cause}",) if cause else (),
        limits=known_limits(folder),
        longrope_switch=longrope_switch(folder),
        versions=installed_versions(_PACKAGES),
        seconds=round(time.monotonic() - started, 2),
        peak_rss_bytes=peak_rss(),
    )
