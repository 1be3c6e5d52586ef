"""A model of transformers in PyTorch, and the rows of its KV cache.

Invariant: a row is a cache of transformers, which appends by concatenation and writes to no tensor that it has. So rows
may share tensors, and a copy costs nothing. Rows have lengths of their own, so a decode step runs each row by itself:

    row 2   | t t t t |     + token ->  model  ->   | t t t t T |   = row 2 from now on

transformers' generate() is not used: it makes one answer from its beginning to its end. The engine takes many answers
one token further at a time, so it can stop, constrain, score and stream each of them.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from transformers import DynamicCache

from .cpus import usable_cpus
from .decoder_session import DecoderSession

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TorchDecoder:
    """What is known of a model of transformers. See decoder_session.Decoder."""

    context_length: int
    vocab_size: int
    end_tokens: tuple[int, ...]
    token_bytes: int
    selects_logits: bool = True

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "TorchDecoder":
        """Return what a model's configuration says."""
        config: Any = model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            context_length=config.max_position_embeddings,
            vocab_size=config.vocab_size,
            end_tokens=tuple(np.atleast_1d((model.generation_config or config).eos_token_id).tolist()),
            token_bytes=2 * config.num_hidden_layers * heads * head_size * model.dtype.itemsize,
        )


class TorchSession(DecoderSession):
    """A model of transformers in PyTorch."""

    long_prompts_in_one_run = False

    def __init__(self, model: "PreTrainedModel", threads: int, provider: str, rows: int) -> None:
        """
        Args:
            threads: of PyTorch, which has one number for the whole process. 0: its own choice, or OMP_NUM_THREADS, but
                no more than the CPUs that the process may use.
            provider: the device, cpu or cuda.
            rows: how many sequences the KV cache can hold at the same time.

        Raises:
            MlflowException: there is no such device.
        """
        torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cpus()))
        try:
            self._model: Any = model.eval().to(provider)  # type: ignore[arg-type]  # any name of a device
        except (AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MlflowException.invalid_parameter_value(
                f"model config: provider is {provider!r}, which PyTorch cannot use here ({reason}): use cpu"
            ) from None
        self.graph, self.rows, self.threads = TorchDecoder.of(model), rows, torch.get_num_threads()
        self._caches: list[Any] = [DynamicCache() for _ in range(rows)]
        self._mask_length = 0  # of the present run
        rotary: Any = getattr(self._model.base_model, "rotary_emb", None)
        if getattr(rotary, "rope_type", None) == "longrope":
            rotary.register_forward_pre_hook(self._lengthen, with_kwargs=True)
            rotary.register_forward_hook(self._shorten, with_kwargs=True)

    @torch.inference_mode()
    def prefill(self, row: int, tokens: Sequence[int], past: int, mask_length: int = 0, logits: int = 0) -> np.ndarray:
        """See DecoderSession."""
        self._caches[row].crop(past)
        self._mask_length = mask_length
        ids = torch.tensor([tokens], device=self._model.device)
        positions = torch.arange(past, past + len(tokens), device=self._model.device)
        output = self._model(
            input_ids=ids,
            position_ids=positions[None],
            cache_position=positions,
            past_key_values=self._caches[row],
            use_cache=True,
            logits_to_keep=max(logits, 1),  # 0 means all
        )
        return output.logits[0, len(output.logits[0]) - logits :].float().cpu().numpy()

    def decode(self, first: int, tokens: Sequence[int], lengths: Sequence[int], mask_length: int = 0) -> np.ndarray:
        """See DecoderSession."""
        rows = [
            self.prefill(first + index, [token], length - 1, mask_length, logits=1)[0]
            for index, (token, length) in enumerate(zip(tokens, lengths, strict=True))
        ]
        return np.stack(rows)

    def copy(self, source: int, target: int, length: int) -> None:
        """See DecoderSession."""
        cache: Any = DynamicCache()
        cache.layers = [copy.copy(layer) for layer in self._caches[source].layers]
        cache.crop(length)
        self._caches[target] = cache

    def free(self, row: int) -> None:
        """See DecoderSession."""
        self._caches[row] = DynamicCache()

    # LongRoPE's factors follow the last position of a run. To ask for the long factors before the text is so long, the
    # rotary embedding sees one position more, and its result loses it again. transformers has no argument for that.

    def _lengthen(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._mask_length:
            return args, kwargs
        if "seq_len" in kwargs:  # PhimoeForCausalLM computes the rotations of all positions up to a length
            return args, {"seq_len": max(int(kwargs["seq_len"]), self._mask_length)}
        hidden_states, positions = args
        last = positions.new_full((1, 1), self._mask_length - 1)
        return (hidden_states, torch.cat([positions, last], dim=1)), kwargs

    def _shorten(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not self._mask_length or "seq_len" in kwargs:
            return output
        cos, sin = output
        return cos[:, :-1], sin[:, :-1]
