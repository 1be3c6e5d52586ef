"""Translate config.json and generation_config.json to what transformers 4.57 reads, whichever tool saved them.

transformers 5 writes `rope_parameters` in place of rope_theta, rope_scaling and partial_rotary_factor. transformers
4.57 reads such a file without an error, and takes the default rotary embedding.
"""

from dataclasses import dataclass
from typing import Any

from steps.checkpoint.hidden_code import allowed_config, refuse_code
from steps.common.errors import StepError

_TOP_LEVEL_ROPE = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
_LONGROPE_FIELDS = ("short_factor", "long_factor")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Translated:
    """A translated file: its content, and each change in words."""

    content: dict[str, Any]
    changes: tuple[str, ...]


def translate_config(config: dict[str, Any]) -> Translated:
    """Return config.json with the fields that transformers 4.57 reads.

    Raises:
        StepError: a field can name code, or the rotary embedding can't be said in these fields.
    """
    content = dict(config)
    changes: list[str] = []
    saved_by = config.get("transformers_version")
    if "rope_parameters" in content:
        rope = content.pop("rope_parameters")
        content |= _translate_rope(rope, str(content.get("model_type", "")))
        changes.append(
            f"config.json: rope_parameters of transformers {saved_by or '5'} became rope_theta and rope_scaling"
        )
    allowed, dropped = allowed_config(content, "config.json")
    if dropped:
        changes.append(f"config.json: left out fields that transformers 4.57 does not read: {', '.join(dropped)}")
    return Translated(allowed, tuple(changes))


def _translate_rope(rope: Any, model_type: str) -> dict[str, Any]:
    """Return the fields of transformers 4.57 for transformers 5's `rope_parameters`.

    Raises:
        StepError: the parameters differ by layer, or this kind of rope does not exist for the model type in 4.57.
    """
    if rope is None:
        return {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise StepError(
            f"config.json: rope_parameters is {rope!r:.80}; expected one set of parameters for all layers: use a "
            "checkpoint of a Phi-3, Phi-3.5 or Phi-4-mini"
        )
    fields = {key: rope[key] for key in _TOP_LEVEL_ROPE if rope.get(key) is not None}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return fields | {"rope_scaling": None}
    rest = {key: value for key, value in rope.items() if key not in (*_TOP_LEVEL_ROPE, "rope_type", "type")}
    if model_type != "phi3":
        return fields | {"rope_scaling": {"rope_type": kind, **rest}}
    extra = sorted(set(rest) - set(_LONGROPE_FIELDS) - {"factor"})
    if kind != "longrope" or extra or any(name not in rest for name in _LONGROPE_FIELDS):
        raise StepError(
            f"config.json: rope_parameters has rope_type {kind!r}{f' with {extra[0]}' if extra else ''}; a Phi-3 has "
            "default or longrope with short_factor and long_factor: use a checkpoint with one of these"
        )
    return fields | {"rope_scaling": {"type": "longrope", **{name: rest[name] for name in _LONGROPE_FIELDS}}}


def translate_generation(generation: dict[str, Any], config: dict[str, Any], end_tokens: tuple[int, ...]) -> Translated:
    """Return generation_config.json with the token IDs, and with sampling parameters only if the model samples.

    Args:
        generation: the file's content; empty if there is no file.
        config: config.json.
        end_tokens: every token that ends an answer.

    Raises:
        StepError: a field can name code.
    """
    refuse_code(generation, "generation_config.json")
    content: dict[str, Any] = {"_from_model_config": False} if not generation else {}
    for name in ("bos_token_id", "pad_token_id"):
        value = generation.get(name, config.get(name))
        if value is not None:
            content[name] = value
    content["eos_token_id"] = list(end_tokens)
    if generation.get("do_sample") is True:
        content |= {"do_sample": True} | {
            name: generation[name] for name in _SAMPLING if generation.get(name) is not None
        }
    return Translated(content, ())
