"""Which exporter, precision, device and builder options go together; refused before any work otherwise."""

import re

from steps.errors import StepError, nearest, one_of

EXPORTERS = ("genai", "optimum")
DEVICES = ("cpu", "cuda")
PRECISIONS = {
    ("genai", "cpu"): ("int4", "int8", "fp32"),
    ("genai", "cuda"): ("int4", "int8", "fp16", "bf16", "fp32"),
    ("optimum", "cpu"): ("fp32",),
    ("optimum", "cuda"): ("fp16", "fp32"),
}
_BOOL = ("true", "false")
# The builder's extra options (onnxruntime_genai/models/builder.py, --help) that leave a text model of the same inputs
# and outputs; it takes any other name without a word. hf_token and hf_remote are left out on purpose.
_OPTIONS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "genai": {
        "accuracy_level": ("1", "2", "3", "4"),
        "algo_config": ("default", "rtn", "k_quant", "rtn_last", "k_quant_last", "k_quant_mixed"),
        "block_size": ("16", "32", "64", "128", "256"),
        "disable_qkv_fusion": _BOOL,
        "is_symmetric": _BOOL,
        "matmul_mixed_precision": None,
        "nodes_to_exclude": None,
        "op_types_to_quantize": None,
        "prune_lm_head": _BOOL,
        "shared_embeddings": _BOOL,
        "use_qdq": _BOOL,
    },
    "optimum": {"opset": None},
}
# Bytes per parameter of the matrices: the weights, and for blocks of 32 one float32 scale each.
_BYTES = {"int4": 0.5 + 4 / 32, "int8": 1 + 4 / 32, "fp16": 2.0, "bf16": 2.0, "fp32": 4.0}


def check_choice(exporter: str, precision: str, device: str, options: str) -> None:
    """Refuse a combination that cannot be made.

    Raises:
        StepError: naming the parameter, its value and the valid ones.
    """
    one_of("exporter", exporter, EXPORTERS)
    one_of("device", device, DEVICES)
    possible = PRECISIONS[exporter, device]
    if precision not in possible:
        raise StepError(
            f"precision is {precision!r}, which exporter {exporter} does not make for device {device}; "
            f"valid there: {', '.join(possible)}"
        )
    parse_options(exporter, options)


def parse_options(exporter: str, text: str) -> dict[str, str]:
    """`k=v,k=v` as a dict. A value may hold commas itself: `matmul_mixed_precision=last_matmul:int8,mixed_layers:int8`.

    Raises:
        StepError: an unknown option, or a value that the option does not take.
    """
    parsed: dict[str, str] = {}
    known = _OPTIONS[exporter]
    for part in filter(None, re.split(r",(?=\w+=)", text)):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise StepError(f"options has {part!r}; expected name=value pairs separated by commas")
        if name not in known:
            raise StepError(f"options: {exporter} has no option {name!r} that may be set; {nearest(name, known)}")
        if known[name]:
            one_of(f"options: {name}", value, known[name])
        parsed[name] = value
    return parsed


def estimated_size(precision: str, facts: dict) -> int:
    """Bytes of the ONNX folder to come, somewhat more than it will have: the embedding stays in full precision.

    Args:
        facts: the architecture facts of the checkpoint's manifest.
    """
    embedding = facts["vocabulary"] * facts["hidden_size"]
    matrices = facts["parameters"] - (0 if facts["tied_embeddings"] else embedding)
    full = 2 if precision in ("fp16", "bf16") else 4
    return int(1.05 * (matrices * _BYTES[precision] + embedding * full)) + (2 << 20)
