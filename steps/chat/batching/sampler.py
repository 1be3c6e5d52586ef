"""Choose the next token from its logits."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .logprobs import TokenLogprob, largest, token_logprob

if TYPE_CHECKING:
    from ..api.sampling import Sampling
    from .constraint import Constraint
    from .thoughts import ThoughtConstraint

_SORTED_FIRST = 1024  # tokens; all tokens are sorted only if these do not hold enough probability
_BANNED = -100  # the logit bias that forbids a token, as OpenAI's API defines it


class Sampler:
    """Chooses the tokens of one answer. The same seed and the same logits give the same tokens."""

    def __init__(
        self,
        sampling: "Sampling",
        choice: int = 0,
        constraint: "Constraint | ThoughtConstraint | None" = None,
        prompt: Sequence[int] = (),
    ) -> None:
        """
        Args:
            choice: the number of the answer among the `n` answers of a request. Each answer has its own random numbers.
            prompt: the tokens of the prompt, which repetition_penalty counts as repeated too.
        """
        self._sampling, self._constraint = sampling, constraint
        seed = None if sampling.seed is None else [sampling.seed, choice]
        self._random = np.random.default_rng(seed) if sampling.temperature > 0 else None
        self._counts: Counter[int] = Counter()
        self._penalised = bool(sampling.frequency_penalty or sampling.presence_penalty)
        self._repeated = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._bias = sampling.logit_bias and (
            np.array([token for token, _ in sampling.logit_bias]),
            np.array([-np.inf if bias <= _BANNED else bias for _, bias in sampling.logit_bias], np.float32),
        )
        self._changes = bool(
            self._penalised or constraint or self._bias or (sampling.repetition_penalty != 1 and sampling.max_tokens)
        )
        self.logprobs: list[TokenLogprob] = []  # of the tokens so far, if the sampling asks for them

    def choose(self, logits: np.ndarray) -> int:
        """Return the next token.

        Args:
            logits: float32 [vocabulary]. They are not changed.
        """
        changed = self._changed(logits) if self._changes else logits
        token = int(changed.argmax()) if self._random is None else self._draw(changed, self._random)
        if self._constraint:
            token = self._constraint.accept(token)
        if self._penalised:
            self._counts[token] += 1
        if self._sampling.repetition_penalty != 1:
            self._repeated.add(token)
        if self._sampling.logprobs is not None:
            self.logprobs.append(token_logprob(logits, token, self._sampling.logprobs))
        return token

    def _changed(self, logits: np.ndarray) -> np.ndarray:
        """Return the logits after bias, penalties and constraint."""
        sampling, changed = self._sampling, logits.copy()
        if self._bias:
            tokens, biases = self._bias
            changed[tokens] += biases
        if self._repeated:
            tokens = np.array([*self._repeated])
            values, penalty = changed[tokens], sampling.repetition_penalty
            changed[tokens] = np.where(values > 0, values / penalty, values * penalty)
        if self._penalised and self._counts:
            # As https://platform.openai.com/docs/api-reference/chat: tokens of the prompt do not count.
            tokens, counts = np.array([*self._counts]), np.array([*self._counts.values()], np.float32)
            changed[tokens] -= counts * sampling.frequency_penalty + sampling.presence_penalty
        allowed = self._constraint.allowed(len(changed)) if self._constraint else None
        if allowed is not None:
            changed[~allowed] = -np.inf
            if changed.max() == -np.inf:  # the bias forbids every token that the format allows: the format wins
                changed = np.where(allowed, logits, -np.inf)
        return changed if changed.max() > -np.inf else logits

    def _draw(self, logits: np.ndarray, random: np.random.Generator) -> int:
        """Draw by temperature from the top_k most likely tokens, cut to the fewest tokens that hold top_p of them.

        Tokens of less than min_p times the largest probability are left out.
        """
        sampling = self._sampling
        scaled = logits.astype(np.float64) / sampling.temperature
        weights = np.exp(scaled - scaled.max())
        most = min(sampling.top_k or len(weights), len(weights))
        order = largest(logits, min(most, _SORTED_FIRST) if sampling.top_p < 1 else most)
        if sampling.top_p < 1:
            total = (weights if most == len(weights) else weights[largest(logits, most)]).sum()
            if weights[order].sum() < sampling.top_p * total:
                order = largest(logits, most)
            sums = np.cumsum(weights[order])
            order = order[: int(np.searchsorted(sums, sampling.top_p * total)) + 1]
        if sampling.min_p > 0:
            order = order[weights[order] >= sampling.min_p]  # the largest weight is 1
        sums = np.cumsum(weights[order])
        position = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
        return int(order[min(position, len(order) - 1)])
