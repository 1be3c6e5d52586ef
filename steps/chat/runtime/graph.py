"""What a session must know about a decoder graph: the names, shapes and types of its inputs and outputs."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort

FIRST_LOGIT = "first_logit"  # steps/conversion adds this input to a graph: the first position whose logits are computed
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class DecoderGraph:
    """The interface of one decoder graph.

    `past_names` and `present_names` name the KV cache inputs and outputs: key, value, key, value, ... by layer.
    """

    context_length: int  # tokens
    vocab_size: int
    end_tokens: tuple[int, ...]
    heads: int  # of keys and values
    head_size: int
    past_names: tuple[str, ...]
    present_names: tuple[str, ...]
    kv_dtype: np.dtype
    logits_dtype: np.dtype
    has_position_ids: bool
    selects_logits: bool  # the graph has the input FIRST_LOGIT; otherwise it computes the logits of every position

    @classmethod
    def of(cls, session: ort.InferenceSession, config: dict[str, Any]) -> "DecoderGraph":
        """Return the interface of a loaded graph.

        Args:
            config: the section `model` of its genai_config.json.
        """
        decoder = config["decoder"]
        inputs = {value.name: value.type for value in session.get_inputs()}
        outputs = {value.name: value.type for value in session.get_outputs()}
        past_names = _kv_names(decoder["inputs"], "past", decoder["num_hidden_layers"])
        return cls(
            context_length=config["context_length"],
            vocab_size=config["vocab_size"],
            end_tokens=tuple(np.atleast_1d(config["eos_token_id"]).tolist()),
            heads=decoder["num_key_value_heads"],
            head_size=decoder["head_size"],
            past_names=past_names,
            present_names=_kv_names(decoder["outputs"], "present", decoder["num_hidden_layers"]),
            kv_dtype=np.dtype(_DTYPES[inputs[past_names[0]]]),
            logits_dtype=np.dtype(_DTYPES[outputs["logits"]]),
            has_position_ids="position_ids" in inputs,
            selects_logits=FIRST_LOGIT in [value.name for value in session.get_overridable_initializers()],
        )

    @cached_property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token, all layers together."""
        return len(self.past_names) * self.heads * self.head_size * self.kv_dtype.itemsize


def _kv_names(names: dict[str, str], prefix: str, layers: int) -> tuple[str, ...]:
    patterns = names[f"{prefix}_key_names"], names[f"{prefix}_value_names"]
    return tuple(pattern % layer for layer in range(layers) for pattern in patterns)
