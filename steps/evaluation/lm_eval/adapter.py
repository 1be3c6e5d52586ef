"""The model "mlflow" of lm-evaluation-harness: a logged model of either wrapper.

Importing this module needs lm-eval, and adds the model to lm-eval's list of models.
Likelihoods come from the logits of the weights inside the model, as in the fidelity of `evaluate`. Texts are what the
model answers to chat messages through pyfunc, as a client gets them.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm
from transformers import AutoTokenizer

from steps.chat.runtime.reasoning import answer_of, has_thoughts, is_named_reasoning, opens_thought
from steps.common.errors import StepError
from steps.evaluation.lm_eval.model_folder import open_model_folder
from steps.evaluation.measure.logits import TokenLogits, open_logits
from steps.evaluation.measure.worker import LoggedModel, one_line
from steps.evaluation.subject import input_names

Scored = tuple[float, bool]  # log-likelihood in nats, and whether greedy decoding gives the text


class Prompt(str):
    """A conversation as text, by the chat template, which keeps its messages. lm-eval handles prompts as text."""

    messages: list[dict[str, str]]


def _bar(work: Iterable[Any], title: str, count: int, disable: bool) -> Iterable[Any]:
    return tqdm(work, title, count, disable=disable or None)  # None: no bar if stderr is not a terminal


@register_model("mlflow")
class MlflowLM(TemplateLM):
    """What lm-eval asks of a language model. Tokens are as in lm-eval's model "hf"."""

    def __init__(
        self,
        model_uri: str,
        max_length: int | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        """Find the model. Its weights are loaded when a task first needs them.

        Args:
            model_uri: of an MLflow model of either wrapper, or its folder.
            max_length: tokens that the model reads at most; see ModelFolder.max_length for the default.
            batch_size: requests for text at a time. The custom model answers them together.
            max_batch_size, device: accepted and ignored, since lm-eval passes them to every model.

        Raises:
            StepError: there is no such model, or neither wrapper made it.
        """
        super().__init__()
        self.model_uri = model_uri
        self.batch_size = int(batch_size)
        self._files = open_model_folder(model_uri)
        self.max_length = min(max_length or self._files.max_length, self._files.max_length)
        self.tokenizer = AutoTokenizer.from_pretrained(self._files.tokenizer, local_files_only=True)

    @cached_property
    def _logits(self) -> TokenLogits:
        logits = open_logits(self._files.folder)
        if logits is None:
            raise StepError(f"model is {self.model_uri!r}: expected a model that wrap_transformer or wrap_custom made")
        return logits

    @cached_property
    def _model(self) -> LoggedModel:
        if "messages" not in input_names(self._files.info):
            raise StepError(
                f"model is {self.model_uri!r}, which takes no chat messages: a task that generates text needs a model "
                "that was wrapped with task=llm/v1/chat"
            )
        return LoggedModel(str(self._files.folder), ignore_eos=False)

    @cached_property
    def _has_thoughts(self) -> bool:
        checkpoint = (self._files.info.metadata or {}).get("checkpoint", "")  # the name, as both wrappers write it
        return has_thoughts(self._files.tokenizer) or is_named_reasoning(checkpoint)

    @cached_property
    def _opens_thought(self) -> bool:
        return opens_thought(self.apply_chat_template([{"role": "user", "content": "?"}]))

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token before the first token of a text that has no context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """The name under which lm-eval caches prompts."""
        return self.model_uri.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the tokens of a text.

        Args:
            add_special_tokens: whether the tokenizer adds its special tokens. None: if the text lacks the first.
        """
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Prompt:
        """Return the prompt of a conversation. Without a generation prompt, it stops where the last message ends."""
        prompt = Prompt(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )
        prompt.messages = chat_history
        return prompt

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Scored]:
        """Score continuations of contexts, as TemplateLM does; but show no bar if stderr is not a terminal."""
        return super().loglikelihood(requests, disable_tqdm or not sys.stderr.isatty())

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[Scored]:
        """Score continuations. A context that is too long loses its start.

        Args:
            requests: for each, its (context, continuation) as text or None, and the tokens of both.

        Raises:
            StepError: a continuation is longer than the model reads.
        """
        # The choices of a question often differ in their last token only: they have the same logits.
        same_logits = defaultdict(list)
        for index, (_texts, context, continuation) in enumerate(requests):
            if len(continuation) > self.max_length:
                raise StepError(f"a continuation of {len(continuation)} tokens; the model reads {self.max_length}")
            same_logits[tuple((context + continuation)[-self.max_length - 1 : -1])].append(index)
        scores: list[Scored] = [(0.0, True)] * len(requests)
        for tokens, indices in _bar(same_logits.items(), "scoring", len(same_logits), disable_tqdm):
            for index, score in zip(indices, self._score(tokens, [requests[i][2] for i in indices]), strict=True):
                scores[index] = score
                texts = requests[index][0]
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, score)
        return scores

    def _score(self, tokens: Sequence[int], continuations: list[list[int]]) -> list[Scored]:
        """Score continuations that end with the token after `tokens`; their other tokens are the last of `tokens`."""
        width = max(map(len, continuations))
        targets = np.array([[-1] * (width - len(ids)) + ids for ids in continuations], np.int64)  # -1: no target
        total, greedy = np.zeros(len(targets)), np.ones(len(targets), bool)
        start = 0
        # The last token that blocks() gets has no logits, so any token will do.
        for logits in self._logits.blocks([*tokens, self.eot_token_id], len(tokens) - width):
            part = targets[:, start : start + len(logits)]
            start += len(logits)
            peak = logits.max(axis=1, keepdims=True)
            log_sum = peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1, dtype=np.float64))
            total += np.where(part < 0, 0, logits[np.arange(len(logits)), part] - log_sum).sum(axis=1)
            greedy &= ((part < 0) | (part == logits.argmax(axis=1))).all(axis=1)
        return [(float(value), bool(is_greedy)) for value, is_greedy in zip(total, greedy, strict=True)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, in windows of `max_length` that predict every token once."""
        totals = []
        for request in _bar(requests, "reading", len(requests), disable_tqdm):
            (text,) = request.args
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens(pairs, disable_tqdm=True)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the greedy answers of the model, up to the first stop string.

        A prompt that the chat template did not make becomes one message of the user.

        Raises:
            StepError: a task wants sampling or begins the answer itself; the model takes no chat messages, or fails.
        """
        _ = self._model  # loaded once, before threads want it
        with ThreadPoolExecutor(self.batch_size) as pool:
            answers = pool.map(lambda request: self._generate(*request.args), requests)
            return list(_bar(answers, "answering", len(requests), disable_tqdm))

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        wanted = normalize_gen_kwargs(options)
        if wanted["do_sample"]:
            raise StepError(
                f"the task wants sampled text ({options}); only greedy answers can be asked of both wrappers"
            )
        messages = context.messages if isinstance(context, Prompt) else [{"role": "user", "content": context}]
        if messages[-1]["role"] == "assistant":
            raise StepError("the task begins the answer itself (gen_prefix); a chat model cannot continue an answer")
        try:
            answer = self._model.answer(messages, wanted["max_gen_toks"])
        except Exception as error:  # the two wrappers raise different ones
            raise StepError(f"the model refused a prompt of {len(context)} characters: {one_line(error)}") from error
        text = answer["text"]
        if self._has_thoughts:  # tasks judge the answer only
            text = answer_of(text, self._opens_thought and answer["shows_thoughts"])
        for stop in filter(None, wanted["until"]):  # here, since the transformers flavor has no stop strings
            text = text.partition(stop)[0]
        self.cache_hook.add_partial("generate_until", (context, options), text)
        return text
