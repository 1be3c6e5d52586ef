"""Check that a converted model is wired as its checkpoint, and measure what rounding costs.

Rounding changes logits as much as a wrong wire does. So the two are told apart:

    checkpoint's weights <--- within a rounding step? ---> ONNX file's weights, dequantised
                                                                  |
                                         PyTorch with these weights  <--- same logits? --->  the ONNX graph

- A weight of the ONNX file differs from the checkpoint's by less than a step of its rounding, or it is another weight.
- PyTorch and the graph compute with the same weights. For the comparison the graph's activations are float32, not int8.
  So the logits are the same to six digits, whatever the model.
- The KL divergence of the served model from the checkpoint is what rounding costs. It is measured, and refused only
  above a limit that no gate could pass.
"""

import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steps.common.errors import StepError
from steps.conversion.converted_model import ConvertedModel
from steps.conversion.mapped_model import float32_logits, open_model, weight_errors
from steps.conversion.record import LogitsCheck, Rounding

if TYPE_CHECKING:
    from steps.conversion.weights import Weight

PROMPTS = ("What is the capital of France?", "Count from 1 to 10.")
NEW_TOKENS = 8  # of an answer, at most
TEXT_TOKENS = 256  # on which the cost of rounding is measured
_TEXT_CHARACTERS = 16 * TEXT_TOKENS  # of the text, at most
_KL_DIGITS = 7  # decimal places of a KL divergence; what is less comes from float32
# The largest error of a weight, in steps of its rounding. Seen: 0.29, with every algorithm. Another weight gives 3 or
# more.
WEIGHT_TOLERANCE = 1.0
# The largest error of the logits by the type of the activations. Seen in float32: 3e-7 to 2e-5, whatever the model and
# its rounding. The wrong wires that the tests plant give more than 0.05.
TOLERANCE = {"FLOAT": 1e-3, "FLOAT16": 0.02, "BFLOAT16": 0.1}
# The same by precision, where the weights could not be read back. Random or real weights may not survive int4 so well.
ROUGH_TOLERANCE = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1, "int8": 0.1, "int4": 0.4}


@dataclass(frozen=True)
class _Answer:
    """The greedy answer of the converted model to a prompt."""

    prompt: str
    prompt_tokens: list[int]
    tokens: list[int]
    served: np.ndarray  # [tokens, vocabulary]: each token is the largest of its row

    @property
    def read(self) -> list[int]:
        """The tokens that the model has read when it gives the last logits."""
        return [*self.prompt_tokens, *self.tokens[:-1]]

    def after_prompt(self, logits: np.ndarray) -> np.ndarray:
        """Return the logits before each token of the answer, of the logits after each token that was read."""
        return logits[len(self.prompt_tokens) - 1 :]


def check_conversion(
    checkpoint: Path, converted: Path, precision: str, text: str, max_kl: float
) -> tuple[LogitsCheck, Rounding]:
    """Compare the converted model with PyTorch in float32: on the answers to PROMPTS, and on the beginning of a text.

    PyTorch's weights stay in their files, so one model at a time takes memory. All models read the tokens of
    transformers' tokenizer.

    Raises:
        StepError: a weight is not the checkpoint's, the logits differ by more than the tolerance, or the KL divergence
            is above max_kl.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    config = json.loads((converted / "genai_config.json").read_text(encoding="utf-8"))["model"]
    text_tokens = tokenizer(text[:_TEXT_CHARACTERS], verbose=False)["input_ids"]
    text_tokens = text_tokens[: min(TEXT_TOKENS, config["context_length"] - 1)]
    end_tokens = np.atleast_1d(config["eos_token_id"]).tolist()
    served = ConvertedModel(converted)
    answers = []
    for prompt in PROMPTS:
        prompt_tokens = _prompt_tokens(tokenizer, prompt)
        tokens = served.answer(prompt_tokens, NEW_TOKENS, end_tokens)
        answers.append(_Answer(prompt, prompt_tokens, tokens, served.answer_logits(prompt_tokens, tokens)))
    text_logits = served.text_logits(text_tokens)
    del served
    gc.collect()  # the runtime's model, before the next is opened
    expected = open_model(checkpoint)
    checkpoints = [answer.after_prompt(float32_logits(expected, answer.read)) for answer in answers]
    rounding = _rounding(float32_logits(expected, text_tokens), text_logits)
    check = _compare(checkpoint, converted, precision, answers, checkpoints)
    if not rounding.kl_mean <= max_kl:  # true also if the divergence is not a number
        raise StepError(
            f"rounding leaves too little of the model: KL {rounding.kl_mean:g} nats from PyTorch on {rounding.tokens} "
            f"tokens, and max_kl is {max_kl:g}. Nothing was logged. Try other options or precision int8"
        )
    return check, rounding


def _compare(
    checkpoint: Path, converted: Path, precision: str, answers: list[_Answer], checkpoints: list[np.ndarray]
) -> LogitsCheck:
    """Compare the answers with PyTorch, which has the ONNX file's weights if they can be read back.

    Args:
        checkpoints: PyTorch's logits of the answers, with the checkpoint's weights.
    """
    from steps.conversion.onnx_weights import OnnxWeights, UnreadableError

    unreadable, weight_error, weights = "", 0.0, None
    model = open_model(checkpoint)
    try:
        onnx_weights = OnnxWeights(converted / "model.onnx")
        weights = onnx_weights.of(model)
    except UnreadableError as problem:
        unreadable = str(problem)
    served_errors = [_error(answer.served, logits) for answer, logits in zip(answers, checkpoints, strict=True)]
    errors, tolerance = served_errors, ROUGH_TOLERANCE[precision]
    if weights is not None:
        weight_error = _check_weights(model, weights)
        own = [answer.after_prompt(float32_logits(model, answer.read, weights)) for answer in answers]
        served_errors = [_error(answer.served, logits) for answer, logits in zip(answers, own, strict=True)]
        exact = ConvertedModel(converted, rounds_activations=False)
        unrounded = [exact.answer_logits(answer.prompt_tokens, answer.tokens) for answer in answers]
        errors = [_error(logits, expected) for logits, expected in zip(unrounded, own, strict=True)]
        tolerance = TOLERANCE[onnx_weights.activations.name]
    for answer, error in zip(answers, errors, strict=True):
        _check_error(answer.prompt, error, tolerance, unreadable)
    equal = sum(
        int((logits.argmax(-1) == answer.tokens).sum()) for answer, logits in zip(answers, checkpoints, strict=True)
    )
    return LogitsCheck(
        prompts=len(answers),
        tokens=sum(len(answer.tokens) for answer in answers),
        equal=equal,
        weight_error=_short(weight_error),
        logit_error=_short(max(errors)),
        tolerance=tolerance,
        activation_error=_short(max(served_errors)),
        unreadable=unreadable,
    )


def _check_weights(model: Any, weights: "dict[str, Weight]") -> float:
    """Return the largest error of a weight. Raise StepError if it is above WEIGHT_TOLERANCE."""
    largest = 0.0
    for name, error in weight_errors(model, weights):
        if not error <= WEIGHT_TOLERANCE:  # true also if the error is not a number
            raise StepError(
                f"the converted model has another weight in place of the checkpoint's {name}: they differ by "
                f"{error:.2g} steps of rounding, and {WEIGHT_TOLERANCE:g} is the most. Nothing was logged. Try other "
                "options or the other exporter"
            )
        largest = max(largest, error)
    return largest


def _check_error(prompt: str, error: float, tolerance: float, unreadable: str) -> None:
    """Raise StepError if the error of the logits is above the tolerance."""
    if error <= tolerance:
        return
    than = (
        f"the checkpoint does (its own weights could not be read back: {unreadable})"
        if unreadable
        else ("PyTorch does with the same weights, so it computes something else")
    )
    raise StepError(
        f"the converted model does not continue {prompt!r} as {than}: its logits differ by {error:.2g} of their "
        f"standard deviation, and {tolerance} is the most. Nothing was logged. Try other options or the other exporter"
    )


def _rounding(expected: np.ndarray, logits: np.ndarray) -> Rounding:
    """Return the KL divergence of the converted model's next tokens from PyTorch's, and how often the first agrees."""
    divergences = []
    for p, q in zip(expected, logits, strict=True):  # a row at a time, because a vocabulary may be large
        log_p, log_q = (row - np.logaddexp.reduce(row) for row in (p.astype(np.float64), q.astype(np.float64)))
        divergences.append(float((np.exp(log_p) * (log_p - log_q)).sum()))
    same = float((expected.argmax(-1) == logits.argmax(-1)).mean())
    kl_mean = max(0.0, round(float(np.mean(divergences)), _KL_DIGITS))
    return Rounding(tokens=len(expected), kl_mean=_short(kl_mean), same_top=round(same, 3))


def _error(logits: np.ndarray, expected: np.ndarray) -> float:
    """Return the error that TOLERANCE limits, of logits [tokens, vocabulary]: the mean over the tokens."""
    relative = np.sqrt(((logits - expected) ** 2).mean(-1)) / expected.std(-1)
    return float(relative.mean())


def _prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """Return the tokens of a message, or of the plain text if the checkpoint has no chat template."""
    if tokenizer.chat_template is None:
        return tokenizer(prompt, verbose=False)["input_ids"]
    return tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)


def _short(number: float) -> float:
    return float(f"{number:.2g}")
