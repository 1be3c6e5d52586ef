"""Scorers read the answer without its thought: the reference's, the transformers flavor's and the custom model's."""

from pathlib import Path

import mlflow
import pytest

from steps.evaluation.inputs.effort import Effort
from steps.evaluation.inputs.question import Question
from steps.evaluation.inputs.scored_text import TextContent
from steps.evaluation.measure.measured import AnswerRule
from steps.evaluation.measure.measuring import Checkpoint, measure_reference
from steps.evaluation.measure.model_process import Answer, ModelProcess
from tests.chat.models import save_model, save_transformers_model
from tests.chat.thinking import with_opening_template, with_tags
from tests.checkout import TINY

RULE = AnswerRule.of(has_thoughts=True, opens_thought=False)
ANSWER = "8 9 10 11 12 13 14 15 16 17 18 19 20"
COUNT = [{"role": "user", "content": "Count from 1 to 40."}]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "shows_thoughts", "opens_thought", "answer"),
    [
        ("<think>\nParis? Yes.\n</think>\n\nParis", True, False, "Paris"),
        ("Yes.\n</think>\n\nParis", True, True, "Paris"),
        ("Never done", True, True, ""),
        ("Paris", False, True, "Paris"),  # the model has separated the thought itself
        ("<think>a</think>Paris", False, True, "Paris"),
        ("Paris", True, False, "Paris"),
    ],
)
def test_the_text_that_is_judged_is_the_answer(text, shows_thoughts, opens_thought, answer):
    given = Answer(text, 1, 2, 0.5, shows_thoughts=shows_thoughts)
    assert AnswerRule.of(True, opens_thought).apply(given).text == answer


@pytest.mark.unit
def test_a_model_without_thoughts_is_judged_by_all_of_its_text():
    given = Answer("<think>a</think>b", 1, 2, 0.5, shows_thoughts=True)
    assert AnswerRule.of(False, False).apply(given) is given


@pytest.mark.unit
def test_a_reasoning_model_may_write_more_tokens():
    assert (AnswerRule.of(False, False).max_tokens, AnswerRule.of(True, False).max_tokens) == (128, 2048)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint that thinks when it counts."""
    return with_tags(TINY, tmp_path_factory.mktemp("thinking") / "checkpoint", special=False)


def reference(folder: Path, name: str, scratch: Path):
    effort = Effort(1, 8, (30,), 2, 1, 60.0, clients=(1,), requests=1)
    text = TextContent(documents=("The capital of France is Paris. " * 8,))
    return measure_reference(Checkpoint(folder, name), [Question(COUNT, ANSWER)], text, effort, scratch, lambda: None)


@pytest.mark.model
@pytest.mark.parametrize("special", [False, True], ids=["plain tags", "special tags"])
def test_the_reference_answers_without_its_thought(tmp_path, special):
    folder = with_tags(TINY, tmp_path / "checkpoint", special)
    measured = reference(folder, "tiny", tmp_path)
    (answer,) = measured.answers
    assert answer.startswith(ANSWER) and measured.rule == RULE


@pytest.mark.model
def test_the_reference_of_a_template_that_opens_the_thought(tmp_path):
    measured = reference(with_opening_template(TINY, tmp_path / "checkpoint"), "tiny", tmp_path)
    assert (measured.rule.opens_thought, measured.answers) == (True, [""]), "this thought has no end"


@pytest.mark.model
def test_the_name_of_a_checkpoint_can_say_that_it_thinks(tmp_path):
    assert reference(TINY, "owner/tiny-reasoning", tmp_path).rule == RULE


@pytest.mark.model
def test_the_transformers_flavor_is_judged_without_its_thought(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # MLflow would ask the hub for a model card
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    mlflow.transformers.save_model(
        str(checkpoint), tmp_path / "model", task="llm/v1/chat", pip_requirements=["transformers"]
    )
    with ModelProcess("a model", tmp_path) as process:
        process.fetch(str(tmp_path / "model"))
        process.load(ignore_eos=False)
        answer = process.answer(COUNT, 60)
    assert answer.text.startswith("<think> 2 3"), answer
    assert RULE.apply(answer).text.startswith(ANSWER)


@pytest.mark.model
@pytest.mark.parametrize("wrapper", ["custom", "transformers"])
def test_our_models_are_judged_by_their_content(converted, checkpoint, tmp_path, wrapper):
    if wrapper == "custom":
        folder = save_model(with_tags(converted["genai fp32"], tmp_path / "onnx", special=False), tmp_path / "model")
    else:
        folder = save_transformers_model(checkpoint, tmp_path / "model")
    with ModelProcess("a model", tmp_path) as process:
        process.fetch(str(folder))
        process.load(ignore_eos=False)
        answer = process.answer(COUNT, 60)
    assert answer.text.startswith(ANSWER) and not answer.shows_thoughts
    assert AnswerRule.of(True, opens_thought=True).apply(answer).text == answer.text
