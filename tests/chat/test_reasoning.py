"""A logged reasoning model as its users call it: reasoning_content in messages and streams, usage, history, tools."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.types.llm import ChatCompletionChunk

from tests.chat.models import FRANCE, chat, save_model
from tests.chat.thinking import with_opening_template, with_tags

pytestmark = pytest.mark.model
COUNT = [{"role": "user", "content": "Count from 1 to 40."}]


@pytest.fixture(scope="module")
def model(converted, tmp_path_factory):
    """A model that thinks when it counts."""
    scratch = tmp_path_factory.mktemp("reasoning")
    folder = with_tags(converted["genai fp32"], scratch / "onnx", special=True)
    return mlflow.pyfunc.load_model(str(save_model(folder, scratch / "model")))


def test_a_message_has_the_answer_as_content_and_the_thought_beside_it(model):
    response = chat(model, COUNT, max_tokens=12)
    assert response["choices"][0]["message"] == {
        "role": "assistant",
        "content": "8 9 10 11 12",
        "refusal": None,
        "reasoning_content": "2 3 4 5 6",
    }
    assert response["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 12,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }


def test_a_message_without_a_thought_has_no_such_field(model):
    response = chat(model)
    assert response["choices"][0]["message"] == {"role": "assistant", "content": "Paris", "refusal": None}
    assert response["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_every_choice_has_its_thought_and_the_usage_counts_all(model):
    response = chat(model, COUNT, max_tokens=12, n=3)
    assert [choice["message"]["reasoning_content"] for choice in response["choices"]] == ["2 3 4 5 6"] * 3
    assert response["usage"]["completion_tokens_details"] == {"reasoning_tokens": 21}


def test_a_stream_has_the_thought_in_deltas_of_its_own(model):
    request = {"messages": COUNT, "max_tokens": 12, "stream_options": {"include_usage": True}}
    chunks = list(model.predict_stream(request))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[:2] == [{"role": "assistant", "content": ""}, {"reasoning_content": "2"}]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "2 3 4 5 6"
    assert "".join(delta.get("content") or "" for delta in deltas) == "8 9 10 11 12"
    assert not any("content" in delta and "reasoning_content" in delta for delta in deltas)
    usage = chat(model, COUNT, max_tokens=12)["usage"]
    assert chunks[-1]["usage"] | {"prompt_tokens_details": None} == usage | {"prompt_tokens_details": None}
    assert [ChatCompletionChunk.from_dict(chunk).id for chunk in chunks] == [chunks[0]["id"]] * len(chunks)


def test_the_thought_of_an_earlier_answer_is_accepted_and_not_shown_to_the_model(model):
    answer = {"role": "assistant", "content": "8 9"}
    with_thought = [*COUNT, answer | {"reasoning_content": "2 3 4"}, *FRANCE]
    without = [*COUNT, answer, *FRANCE]
    assert chat(model, with_thought)["usage"]["prompt_tokens"] == chat(model, without)["usage"]["prompt_tokens"]
    with pytest.raises(MlflowException, match="reasoning_content"):
        chat(model, [*COUNT, answer | {"reasoning_content": 7}, *FRANCE])


def test_a_template_that_uses_the_thought_of_an_earlier_answer_gets_it(converted, tmp_path):
    from steps.chat.runtime.tokenizer import ChatTokenizer

    folder = with_opening_template(converted["genai fp32"], tmp_path / "onnx")
    file = folder / "chat_template.jinja"
    shown = file.read_text().replace("+ message['content'] + '<|end|>\n'}}{% endif", "+ SHOWN + '<|end|>\n'}}{% endif")
    assert "SHOWN" in shown
    file.write_text(shown.replace("SHOWN", "(message['reasoning_content'] or '') + message['content']"))
    conversation = [*COUNT, {"role": "assistant", "content": "8", "reasoning_content": "2 3 4"}, *FRANCE]
    tokenizer = ChatTokenizer(folder)
    tokens, shown_thought = tokenizer.encode_chat(conversation), tokenizer.encode("2 3 48<|end|>")
    assert any(tokens[start : start + len(shown_thought)] == shown_thought for start in range(len(tokens)))


def test_the_config_switches_it_off(model, converted, tmp_path):
    folder = with_tags(converted["genai fp32"], tmp_path / "onnx", special=False)
    saved = str(save_model(folder, tmp_path / "model"))
    for off in ("off", False):  # YAML reads a plain off as false
        answer = chat(mlflow.pyfunc.load_model(saved, model_config={"reasoning": off}), COUNT, max_tokens=8)
        assert answer["choices"][0]["message"]["content"] == "<think> 2 3 4 5 6</think> 8"
        assert "completion_tokens_details" not in answer["usage"]
