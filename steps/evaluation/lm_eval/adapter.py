"""What lm-evaluation-harness asks of a language model, answered by a logged model of either wrapper.

Likelihoods are of the logits of the weights inside the model, as `evaluate`'s fidelity has them; texts are what the
model itself answers to chat messages through pyfunc, as a client gets them.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from steps.common.errors import StepError
from steps.conversion.runtime_limits import longrope_switch
from steps.evaluation.measure.logits import TokenLogits, open_logits
from steps.evaluation.measure.worker import LoggedModel, one_line

Scored = tuple[float, bool]  # log-likelihood in nats, and whether greedy decoding gives that text


class Conversation(str):
    """A prompt as lm-eval sees it, rendered by the chat template, with the messages that it was made of."""

    messages: list[dict[str, str]]


def _bar(work: Iterable[Any], text: str, count: int, disable: bool) -> Iterable[Any]:
    from tqdm import tqdm  # not before harness.main has set its variable

    return tqdm(work, text, count, disable=disable or None)  # None: where stderr is no terminal


class LoggedModelTasks:
    """What lm-eval asks of a model; `harness.register` puts it before lm-eval's own TemplateLM.

    Tokens are as lm-eval's "hf" model has them.
    """

    def __init__(
        self,
        model_uri: str,
        max_length: int | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        """Find the model; weights are loaded when a task first needs them.

        Args:
            model_uri: of an MLflow model of either wrapper, or its folder.
            max_length: tokens that the model reads at most; by default its context, or what is before LongRoPE's
                switch, across which logits that come in blocks would be wrong.
            batch_size: requests for text at a time; the custom model answers them together.
            max_batch_size, device: given by lm-eval, and of no use here.

        Raises:
            StepError: no such model, or one of neither kind.
        """
        import mlflow
        from transformers import AutoTokenizer

        super().__init__()
        self.model_uri = model_uri
        self.batch_size = int(batch_size)
        try:
            self._folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri))
            self._info = mlflow.models.Model.load(str(self._folder))
        except (mlflow.exceptions.MlflowException, OSError) as error:
            raise StepError(f"model is {model_uri!r}: {one_line(error)}") from None
        tokenizer, length = self._inside()
        self.max_length = min(max_length or length, length)
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)

    def _inside(self) -> tuple[Path, int]:
        """The tokenizer's folder, and the tokens that can be read."""
        flavors = self._info.flavors
        if "transformers" in flavors:
            weights = self._folder / flavors["transformers"].get("model_binary", "model")
            tokenizer = self._folder / "components" / "tokenizer"
            if (weights / "config.json").is_file():
                context = json.loads((weights / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
                return tokenizer if tokenizer.is_dir() else weights, longrope_switch(weights) or context
        for config in self._folder.glob("artifacts/*/genai_config.json"):
            context = json.loads(config.read_text(encoding="utf-8"))["model"]["context_length"]
            return config.parent, flavors["python_function"].get("config", {}).get("longrope_switch") or context
        raise StepError(
            f"model is {self.model_uri!r}, which neither wrap_transformer nor wrap_custom made: expected one that did"
        )

    @cached_property
    def _logits(self) -> TokenLogits:
        return open_logits(self._folder)

    @cached_property
    def _model(self) -> LoggedModel:
        schema = self._info.get_input_schema()
        if schema is None or "messages" not in schema.input_names():
            raise StepError(
                f"model is {self.model_uri!r}, which takes no chat messages: a task that generates text needs one that "
                "was wrapped with task=llm/v1/chat"
            )
        return LoggedModel(str(self._folder), ignore_eos=False)

    @property
    def eot_token_id(self) -> int:
        """The end of a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What the first token of a text without a context follows."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """A name for the prompts that lm-eval caches."""
        return self.model_uri.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text; unless told, with the tokenizer's own special tokens if it has not got them."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> Conversation:
        """The prompt of a conversation; without a generation prompt, up to where its last message ends."""
        prompt = Conversation(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )
        prompt.messages = chat_history
        return prompt

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Scored]:
        """Each request is a context and its continuation. TemplateLM's, with its bar quiet outside a terminal."""
        return super().loglikelihood(requests, disable_tqdm or not sys.stderr.isatty())

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[Scored]:
        """Score each continuation, given (text of both or None, context, continuation); a long context loses its start.

        Raises:
            StepError: a continuation is longer than the context.
        """
        alike = defaultdict(list)  # the choices of a question that differ in their last token only have the same logits
        for index, (_, context, continuation) in enumerate(requests):
            if len(continuation) > self.max_length:
                raise StepError(f"a continuation of {len(continuation)} tokens; the model reads {self.max_length}")
            alike[tuple((context + continuation)[-self.max_length - 1 : -1])].append(index)
        found: list[Scored] = [(0.0, True)] * len(requests)
        for read, indices in _bar(alike.items(), "scoring", len(alike), disable_tqdm):
            scores = self._score(read, [requests[index][2] for index in indices])
            for index, score in zip(indices, scores, strict=True):
                found[index] = score
                if requests[index][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[index][0], score)
        return found

    def _score(self, read: Sequence[int], continuations: list[list[int]]) -> list[Scored]:
        """Score continuations that end with the token after `read`, and are in it but for that."""
        width = max(map(len, continuations))
        targets = np.array([[-1] * (width - len(tokens)) + tokens for tokens in continuations], np.int64)
        total, greedy = np.zeros(len(targets)), np.ones(len(targets), bool)
        start = 0
        for logits in self._logits.blocks([*read, self.eot_token_id], len(read) - width):
            part = targets[:, start : start + len(logits)]
            start += len(logits)
            peak = logits.max(axis=1, keepdims=True)
            log_sum = peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1, dtype=np.float64))
            total += np.where(part < 0, 0, logits[np.arange(len(logits)), part] - log_sum).sum(axis=1)
            greedy &= ((part < 0) | (part == logits.argmax(axis=1))).all(axis=1)
        return [(float(value), bool(is_greedy)) for value, is_greedy in zip(total, greedy, strict=True)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, each in windows of `max_length` that predict every token once."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        totals = []
        for request in _bar(requests, "reading", len(requests), disable_tqdm):
            (text,) = request.args
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens(pairs, disable_tqdm=True)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The model's greedy answers, up to the first stop string.

        A prompt that was not made by the chat template is one message of the user.

        Raises:
            StepError: a task wants sampling, or an answer begun; the model takes no chat messages, or refuses some.
        """
        _ = self._model  # loaded once, before threads want it
        with ThreadPoolExecutor(self.batch_size) as pool:
            answers = pool.map(lambda request: self._generate(*request.args), requests)
            return list(_bar(answers, "answering", len(requests), disable_tqdm))

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        from lm_eval.models.utils import normalize_gen_kwargs

        wanted = normalize_gen_kwargs(options)
        if wanted["do_sample"]:
            raise StepError(
                f"the task wants sampled text ({options}); only greedy answers can be asked of both wrappers"
            )
        messages = getattr(context, "messages", [{"role": "user", "content": context}])
        if messages[-1]["role"] == "assistant":
            raise StepError("the task begins the answer itself (gen_prefix), which a chat model cannot continue")
        try:
            text = self._model.answer(messages, wanted["max_gen_toks"])["text"]
        except Exception as error:  # the two wrappers raise different ones
            raise StepError(f"the model refused a prompt of {len(context)} characters: {one_line(error)}") from error
        # Here and not by the model, since the transformers flavor cannot.
        for stop in filter(None, wanted["until"]):
            text = text.partition(stop)[0]
        self.cache_hook.add_partial("generate_until", (context, options), text)
        return text
