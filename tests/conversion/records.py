"""conversion.json for tests: the record of a converted folder."""

from pathlib import Path
from typing import Any

from steps.common.hashing import describe_files, total_size
from steps.conversion.record import Conversion, ConvertedCheckpoint, LogitsCheck, TokenizerCheck


def conversion_of(folder: Path, **fields: Any) -> Conversion:
    """Return the record of a converted folder: the shipped checkpoint in int4 by genai, except for the fields given."""
    files = describe_files(folder, sorted(path.name for path in folder.iterdir()))
    record: dict[str, Any] = {
        "checkpoint": ConvertedCheckpoint(
            kind="folder", location="params/tiny-phi3", name="tiny-phi3", commit="", run="0" * 32
        ),
        "exporter": "genai",
        "precision": "int4",
        "device": "cpu",
        "options": {},
        "limits": (),
        "longrope_switch": 0,
        "versions": {"onnxruntime-genai": "0.15.2"},
        "seconds": 1.5,
        "peak_rss_bytes": 400_000_000,
        "tokenizer": TokenizerCheck(texts=29, genai_differences=()),
        "check": LogitsCheck(prompts=2, tokens=16, equal=16, logit_error=0.07, tolerance=0.4),
        "files": files,
        "size_bytes": total_size(files),
    }
    return Conversion(**(record | fields))
