"""conversion.json for tests: the record of a converted folder."""

from pathlib import Path
from typing import Any

from steps.common.hashing import describe_files, total_size
from steps.conversion.record import Conversion, ConvertedCheckpoint, LogitsCheck, Rounding, TokenizerCheck


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
        "notes": (),
        "limits": (),
        "longrope_switch": 0,
        "versions": {"onnxruntime-genai": "0.15.2"},
        "seconds": 1.5,
        "peak_rss_bytes": 400_000_000,
        "tokenizer": TokenizerCheck(texts=29, genai_differences=()),
        "check": LogitsCheck(
            prompts=2,
            tokens=16,
            equal=16,
            weight_error=0.29,
            logit_error=5e-7,
            tolerance=1e-3,
            activation_error=0.008,
            unreadable="",
        ),
        "rounding": Rounding(tokens=256, kl_mean=0.021, same_top=0.91),
        "files": files,
        "size_bytes": total_size(files),
    }
    return Conversion(**(record | fields))
