"""Which exporter, precision, device and options go together. A wrong choice is refused before any work."""

import math
import re
from dataclasses import dataclass

from steps.checkpoint.manifest import Architecture
from steps.common.errors import StepError, nearest, one_of

EXPORTERS = ("genai", "optimum")
DEVICES = ("cpu", "cuda")
PRECISIONS = {
    ("genai", "cpu"): ("int4", "int8", "fp32"),
    ("genai", "cuda"): ("int4", "int8", "fp16", "bf16", "fp32"),
    ("optimum", "cpu"): ("fp32",),
    ("optimum", "cuda"): ("fp16", "fp32"),
}


@dataclass(frozen=True)
class _Pattern:
    """The values that an option takes, where they are too many to list."""

    regex: str
    description: str  # for the user: "expected ..."


_BOOL = ("true", "false")
_MIXED = r"(last_matmul|mixed_layers):int[48]"
# The builder's extra options (onnxruntime_genai/models/builder.py, --help) that leave a text model with the same inputs
# and outputs. The builder ignores unknown names silently. hf_token and hf_remote are left out on purpose.
_OPTIONS: dict[str, dict[str, tuple[str, ...] | _Pattern]] = {
    "genai": {
        "accuracy_level": ("1", "2", "3", "4"),
        "algo_config": ("default", "rtn", "k_quant", "rtn_last", "k_quant_last", "k_quant_mixed"),
        "block_size": ("16", "32", "64", "128", "256"),
        "disable_qkv_fusion": _BOOL,
        "is_symmetric": _BOOL,
        "matmul_mixed_precision": _Pattern(
            rf"{_MIXED}(,{_MIXED})?", "last_matmul:int8 or mixed_layers:int8, or both with a comma between"
        ),
        "nodes_to_exclude": _Pattern(
            r"/[\w./]+(,/[\w./]+)*", "names of nodes with commas between, such as /lm_head/MatMul"
        ),
        "op_types_to_quantize": ("MatMul", "MatMul/Gather"),
        "prune_lm_head": _BOOL,
        "shared_embeddings": _BOOL,
        "stock": _BOOL,  # not the builder's: run the builder as it comes, without streaming
        "use_qdq": _BOOL,
    },
    "optimum": {"opset": _Pattern(r"1[3-9]|2[01]", "a number from 13 to 21")},
}
# Bytes per parameter of a matrix: the weight, and one float32 scale for each block of 32 weights.
_BYTES = {"int4": 0.5 + 4 / 32, "int8": 1 + 4 / 32, "fp16": 2.0, "bf16": 2.0, "fp32": 4.0}


@dataclass(frozen=True)
class ConversionOptions:
    """How to convert a checkpoint. `parse_choice` returns it, so its values are known to go together."""

    exporter: str
    precision: str
    options: dict[str, str]  # the exporter's own options
    device: str

    @property
    def streamed(self) -> bool:
        """Whether weights go one by one from the checkpoint to the ONNX file."""
        return self.exporter == "genai" and self.options.get("stock") != "true"


def parse_choice(exporter: str, precision: str, options: str, device: str) -> ConversionOptions:
    """Return the parameters of convert_onnx as checked values.

    Args:
        options: the exporter's options as `name=value,name=value`.

    Raises:
        StepError: a value is unknown, or the values do not go together. The line names the parameter, its value and
            the valid values.
    """
    one_of("exporter", exporter, EXPORTERS)
    one_of("device", device, DEVICES)
    possible = PRECISIONS[exporter, device]
    if precision not in possible:
        raise StepError(
            f"precision is {precision!r}, which exporter {exporter} does not make for device {device}; "
            f"valid there: {', '.join(possible)}"
        )
    parsed = _parse_options(exporter, options)
    algorithm = parsed.get("algo_config", "default")
    if precision == "int8" and algorithm != "default":
        raise StepError(
            f"options: algo_config={algorithm} makes matrices of 4 bits, and precision is int8: leave the option out, "
            "or use precision int4"
        )
    return ConversionOptions(exporter, precision, parsed, device)


def parse_max_kl(text: str) -> float:
    """Return the parameter max_kl as nats. Raise StepError if it is not a number above 0."""
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise StepError(f"max_kl is {text!r}; expected a number of nats above 0, such as 5")
    return limit


def _parse_options(exporter: str, text: str) -> dict[str, str]:
    """Return `name=value,name=value` as a dict.

    A value may contain commas: `matmul_mixed_precision=last_matmul:int8,mixed_layers:int8`.

    Raises:
        StepError: an option is unknown or given twice, or does not take its value.
    """
    parsed: dict[str, str] = {}
    for part in filter(None, re.split(r",(?=\w+=)", text)):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise StepError(f"options has {part!r}; expected name=value pairs separated by commas")
        _check_option(exporter, name, value)
        if name in parsed:
            raise StepError(f"options has {name} twice: give it once")
        parsed[name] = value
    return parsed


def _check_option(exporter: str, name: str, value: str) -> None:
    """Raise StepError if the exporter lacks the option, or the option does not take the value."""
    valid_options = _OPTIONS[exporter]
    if name not in valid_options:
        raise StepError(f"options: {exporter} has no option {name!r} that may be set; {nearest(name, valid_options)}")
    valid = valid_options[name]
    if isinstance(valid, tuple):
        one_of(f"options: {name}", value, valid)
    elif not re.fullmatch(valid.regex, value):
        raise StepError(f"options: {name} is {value!r}; expected {valid.description}")


def estimated_size(choice: ConversionOptions, architecture: Architecture) -> int:
    """Return how many bytes of disk the ONNX folder needs. The estimate is somewhat too large."""
    # A number that config.json lacks counts as 0: the estimate only guards the disk.
    width = architecture.hidden_size or 0
    embedding = (architecture.vocabulary or 0) * width  # stays in full precision
    matrices = architecture.parameters - (0 if architecture.tied_embeddings else embedding)
    rope = (architecture.context_length or 0) * width // (architecture.attention_heads or 1)  # cosines and sines
    full = 2 if choice.precision in ("fp16", "bf16") else 4
    size = matrices * _BYTES["int8" if _is_mixed(choice) else choice.precision] + (embedding + rope) * full
    return int(1.05 * size) + (2 << 20)


def _is_mixed(choice: ConversionOptions) -> bool:
    """Return whether a 4-bit conversion keeps some matrices at 8 bits."""
    algorithm = choice.options.get("algo_config", "default")
    return choice.precision == "int4" and (
        algorithm.endswith(("_mixed", "_last")) or "int8" in choice.options.get("matmul_mixed_precision", "")
    )
