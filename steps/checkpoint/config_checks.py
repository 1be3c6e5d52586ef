"""Check the values of config.json before anything is computed from them: each refusal names the file and the field."""

from typing import Any

from steps.checkpoint.transformers_source import config_fields, defines_activation
from steps.common.errors import StepError

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_OPTIONAL_SIZES = ("num_key_value_heads", "head_dim", "original_max_position_embeddings", "sliding_window")
_POSITIVE = ("rope_theta", "partial_rotary_factor", "rms_norm_eps", "layer_norm_eps")
_FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias", "lm_head_bias")
_DTYPES = ("float64", "float32", "float16", "bfloat16")
_AGAIN = "fetch or save the checkpoint again"


def check_names(config: dict[str, Any]) -> None:
    """Raise StepError if the fields that name the architecture are of another type than transformers writes."""
    architectures = config.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise _wrong("architectures", architectures, "a list of class names")
    if not isinstance(config.get("model_type", ""), str):
        raise _wrong("model_type", config["model_type"], "a text")
    if not isinstance(config.get("auto_map") or {}, dict):
        raise _wrong("auto_map", config["auto_map"], "an object")


def check_values(config: dict[str, Any]) -> None:
    """Raise StepError if a number, a flag or a dtype is missing or wrong. The names must have been checked."""
    defined = config_fields(config["model_type"])
    for field in _SIZES:
        if field in defined and field not in config:
            raise StepError(f"config.json has no {field}: {_AGAIN}")
        if field in config and not _is_size(config[field]):
            raise _wrong(field, config[field], "a whole number above 0")
    for field in _OPTIONAL_SIZES:
        if config.get(field) is not None and not _is_size(config[field]):
            raise _wrong(field, config[field], "a whole number above 0")
    for field in _POSITIVE:
        if config.get(field) is not None and not (_is_number(config[field]) and config[field] > 0):
            raise _wrong(field, config[field], "a number above 0")
    for field in _FLAGS:
        if not isinstance(config.get(field) or False, bool):
            raise _wrong(field, config[field], "true or false")
    for field in ("dtype", "torch_dtype"):
        if config.get(field) is not None and config[field] not in _DTYPES:
            raise _wrong(field, config[field], " or ".join(_DTYPES))
    act = config.get("hidden_act")
    if act is not None and not (isinstance(act, str) and defines_activation(act)):
        raise _wrong("hidden_act", act, "an activation function of transformers, such as silu")
    _check_heads(config)
    _check_token_ids(config)


def _check_heads(config: dict[str, Any]) -> None:
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if heads is None or hidden is None:
        return
    if config.get("head_dim") is None and hidden % heads:
        raise _wrong("num_attention_heads", heads, f"a divisor of hidden_size, {hidden}")
    kv_heads = config.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise _wrong("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads, {heads}")


def _check_token_ids(config: dict[str, Any]) -> None:
    for field in ("bos_token_id", "pad_token_id"):
        check_token_id(config, field, "config.json")
    padding, rows = config.get("pad_token_id"), config.get("vocab_size")
    if padding is not None and rows is not None and padding >= rows:  # torch refuses to make the embedding
        raise _wrong("pad_token_id", padding, f"a token ID below vocab_size, {rows}, or null")


def check_token_id(content: dict[str, Any], field: str, file: str) -> None:
    """Raise StepError if a field holds neither null nor a whole number. LLaMA has a pad_token_id of -1."""
    value = content.get(field)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise _wrong(field, value, "a token ID", file)


def is_numbers(value: Any, length: int) -> bool:
    """Return whether a value is a list of so many numbers."""
    return isinstance(value, list) and len(value) == length and all(_is_number(number) for number in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _wrong(field: str, value: Any, expected: str, file: str = "config.json") -> StepError:
    return StepError(f"{file}: {field} is {value!r:.80}; expected {expected}: {_AGAIN}")
