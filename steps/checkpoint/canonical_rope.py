"""Translate the rotary embedding (rope) of config.json to the fields that transformers 4.57 reads.

    transformers 5                                     transformers 4.57
    rope_parameters: {rope_theta: 10000.0,       --->  rope_theta: 10000.0
                      partial_rotary_factor: 1,  --->  partial_rotary_factor: 1
                      rope_type: longrope,       --->  rope_scaling: {type: longrope, short_factor, long_factor}
                      short_factor, long_factor,
                      original_max_...}          --->  original_max_position_embeddings

transformers 4.57 reads a file with rope_parameters without an error, and takes the default rotary embedding: other
logits, and no word. So whatever cannot be said in its fields is refused.
"""

import math
from typing import Any

from steps.checkpoint.config_checks import is_numbers
from steps.checkpoint.transformers_source import config_fields
from steps.common.errors import StepError

_TOP_LEVEL = ("rope_theta", "partial_rotary_factor")
_ORIGINAL_LENGTH = "original_max_position_embeddings"
ROPE_FIELDS = (*_TOP_LEVEL, _ORIGINAL_LENGTH, "rope_scaling")  # outside of rope_scaling, in transformers 4.57
_TYPE_FIELDS = ("rope_type", "type")
_FACTORS = ("short_factor", "long_factor")
_PHI3_LONGROPE = ("longrope", "su", "yarn")  # the last two are what the first Phi-3-128k called it
_OTHER = "use a checkpoint of a Phi-3, Phi-3.5, Phi-4 or Phi-4-mini"


def translate_rope(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return config.json with the rotary embedding as transformers 4.57 reads it, and the changes in words.

    Raises:
        StepError: the parameters are damaged, or transformers 4.57 cannot compute this rotary embedding.
    """
    content = dict(config)
    new, old = content.pop("rope_parameters", None), content.get("rope_scaling")
    if new is not None and old is not None:
        raise StepError(
            "config.json has both rope_parameters and rope_scaling: keep the one that the model was trained with"
        )
    name = "rope_scaling" if new is None else "rope_parameters"
    changes = []
    if new is not None:
        rope = _flat(new, name)
        _move_top_level(rope, content, name)
        content["rope_scaling"] = _scaling(rope, content, name)
        version = config.get("transformers_version") or "5"
        changes.append(f"config.json: rope_parameters of transformers {version} became rope_theta and rope_scaling")
    elif old is not None:
        scaling = _scaling(_flat(old, name), content, name)
        if content["model_type"] == "phi3" and scaling != old:
            content["rope_scaling"] = scaling
            changes.append("config.json: rope_scaling was put into the fields of transformers 4.57")
    changes += _without_switch(content)
    return content, tuple(changes)


def _without_switch(content: dict[str, Any]) -> list[str]:
    """Give a Phi-3 without LongRoPE one length: from two lengths the model builder would conclude LongRoPE."""
    length = content.get("max_position_embeddings")
    if content["model_type"] != "phi3" or content.get("rope_scaling") or content.get(_ORIGINAL_LENGTH) == length:
        return []
    content[_ORIGINAL_LENGTH] = length
    return [f"config.json: {_ORIGINAL_LENGTH} became {length}, as rope_type 'default' has no other length"]


def _flat(rope: Any, name: str) -> dict[str, Any]:
    """Return the parameters, if they are one set for all layers."""
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise StepError(f"config.json: {name} is {rope!r:.80}; expected one set of parameters for all layers: {_OTHER}")
    return dict(rope)


def _move_top_level(rope: dict[str, Any], content: dict[str, Any], name: str) -> None:
    """Move the fields that stand outside rope_scaling in transformers 4.57. The number in `rope` wins, as in 5."""
    for field in _TOP_LEVEL:
        value = rope.pop(field, None)
        if value is None:
            continue
        if not is_numbers([value], 1) or value <= 0:
            raise StepError(f"config.json: {name}.{field} is {value!r:.80}; expected a number above 0")
        if field not in config_fields(content["model_type"]) and value != 1:
            raise StepError(
                f"config.json: {name} has {field} {value}, which transformers 4.57 does not have for model type "
                f"{content['model_type']!r}: {_OTHER}"
            )
        content[field] = value


def _check_default(rope: dict[str, Any], name: str) -> None:
    """Raise StepError if the default rotary embedding has a parameter that would be lost."""
    if rest := sorted(key for key in rope if key not in (*_TYPE_FIELDS, _ORIGINAL_LENGTH) and rope[key] is not None):
        raise StepError(
            f"config.json: {name} has {rest[0]} with rope_type 'default', which has no such field: {_OTHER}"
        )


def _scaling(rope: dict[str, Any], content: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return rope_scaling of transformers 4.57; None for the default rotary embedding."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        _check_default(rope, name)
        return None
    if not isinstance(kind, str):
        raise StepError(f"config.json: {name}.rope_type is {kind!r:.80}; expected a name such as longrope")
    rest = {key: value for key, value in rope.items() if key not in _TYPE_FIELDS}
    if content["model_type"] == "phi3":
        _check_phi3(kind, rest, content, name)
        return {"type": "longrope", **{field: rest[field] for field in _FACTORS}}
    if kind == "longrope" and content["model_type"] != "phimoe":  # PhiMoE has a rotary embedding of its own
        _check_lengths(rest, content, name)
    return {"type" if content["model_type"] == "phimoe" else "rope_type": kind, **rest}


def _check_phi3(kind: str, rest: dict[str, Any], content: dict[str, Any], name: str) -> None:
    """Raise StepError if rope_scaling is not LongRoPE with the fields that transformers 4.57 expects of a Phi-3."""
    known = (*_FACTORS, _ORIGINAL_LENGTH, "factor")
    extra = sorted(key for key, value in rest.items() if key not in known and value is not None)
    if kind not in _PHI3_LONGROPE or extra:
        raise StepError(
            f"config.json: {name} has rope_type {kind!r}{f' with {extra[0]}' if extra else ''}; a Phi-3 has default or "
            f"longrope with short_factor and long_factor: {_OTHER}"
        )
    head = content["hidden_size"] // content["num_attention_heads"]
    pairs = int(head * (content.get("partial_rotary_factor") or 1.0)) // 2
    for field in _FACTORS:
        if not is_numbers(rest.get(field), pairs):
            raise StepError(
                f"config.json: {name}.{field} is {rest.get(field)!r:.80}; expected a list of {pairs} numbers, one for "
                "each pair of rotary dimensions"
            )
    _check_lengths(rest, content, name)


def _check_lengths(rest: dict[str, Any], content: dict[str, Any], name: str) -> None:
    """Put LongRoPE's original length where transformers 4.57 reads it.

    Raises:
        StepError: there is no such length, or the factor is not the ratio from which 4.57 computes.
    """
    original, factor = rest.get(_ORIGINAL_LENGTH) or content.get(_ORIGINAL_LENGTH), rest.get("factor")
    if not isinstance(original, int) or original <= 0:
        raise StepError(f"config.json: {_ORIGINAL_LENGTH} is {original!r:.80}; LongRoPE needs a whole number above 0")
    content[_ORIGINAL_LENGTH] = original
    ratio = content["max_position_embeddings"] / original
    if factor is not None and not (is_numbers([factor], 1) and math.isclose(factor, ratio, rel_tol=1e-6)):
        raise StepError(
            f"config.json: {name} has factor {factor!r:.80}, and max_position_embeddings / {_ORIGINAL_LENGTH} is "
            f"{ratio:g}; transformers 4.57 computes with the latter alone: {_OTHER}"
        )
