"""Which exporter, precision, device and builder options go together; refused before any work otherwise."""

import re

from steps.common.errors import StepError, nearest, one_of

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
_OPTIONS: dict[str, dict[str, tuple[str, ...] | re.Pattern]] = {
    "genai": {
        "accuracy_level": ("1", "2", "3", "4"),
        "algo_config": ("default", "rtn", "k_quant", "rtn_last", "k_quant_last", "k_quant_mixed"),
        "block_size": ("16", "32", "64", "128", "256"),
        "disable_qkv_fusion": _BOOL,
        "is_symmetric": _BOOL,
        "matmul_mixed_precision": re.compile(
            r"(last_matmul|mixed_layers):int[48](,(last_matmul|mixed_layers):int[48])?"
        ),
        "nodes_to_exclude": re.compile(r"/[\w./]+(,/[\w./]+)*"),
        "op_types_to_quantize": ("MatMul", "MatMul/Gather"),
        "prune_lm_head": _BOOL,
        "shared_embeddings": _BOOL,
        "stock": _BOOL,  # ours: the builder as it comes, without streaming
        "use_qdq": _BOOL,
    },
    "optimum": {"opset": re.compile(r"1[3-9]|2[01]")},
}
_FORMS = {
    "matmul_mixed_precision": "last_matmul:int8 or mixed_layers:int8, or both with a comma between",
    "nodes_to_exclude": "names of nodes with commas between, such as /lm_head/MatMul",
    "opset": "a number from 13 to 21",
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
    algorithm = parse_options(exporter, options).get("algo_config", "default")
    if precision == "int8" and algorithm != "default":
        raise StepError(
            f"options: algo_config={algorithm} makes matrices of 4 bits whatever the precision: leave it out for int8, "
            "or use precision int4"
        )


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
        if isinstance(known[name], tuple):
            one_of(f"options: {name}", value, known[name])
        elif not known[name].fullmatch(value):
            raise StepError(f"options: {name} is {value!r}; expected {_FORMS[name]}")
        if name in parsed:
            raise StepError(f"options has {name} twice: give it once")
        parsed[name] = value
    return parsed


def estimated_size(precision: str, options: str, facts: dict) -> int:
    """Bytes of the ONNX folder to come, somewhat more than it will have: the embedding stays in full precision.

    Args:
        facts: the architecture facts of the checkpoint's manifest.
    """
    embedding = facts["vocabulary"] * facts["hidden_size"]
    matrices = facts["parameters"] - (0 if facts["tied_embeddings"] else embedding)
    full = 2 if precision in ("fp16", "bf16") else 4
    mixed = precision == "int4" and any(word in options for word in ("int8", "_mixed", "_last"))
    rope = facts["context_length"] * facts["hidden_size"] // facts["attention_heads"]  # cosines and sines
    size = matrices * _BYTES["int8" if mixed else precision] + (embedding + rope) * full
    return int(1.05 * size) + (2 << 20)
