"""The official openai client against the server: chat, streams, structured answers, completions, responses."""

from typing import Literal

import openai
import pytest
from pydantic import BaseModel

from tests.serving.harness import FRANCE, NAME, Server

pytestmark = pytest.mark.model


class Capital(BaseModel):
    city: Literal["Oslo", "Paris"]  # a small model may never end a free text


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any word", max_retries=0)


def test_a_chat_is_answered(client):
    answer = client.chat.completions.create(model=NAME, messages=FRANCE)
    assert answer.choices[0].message.content == "Paris"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == NAME
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_an_answer_is_valid_history(client):
    first = client.chat.completions.create(model=NAME, messages=FRANCE).choices[0].message
    history = [*FRANCE, first.model_dump(), *FRANCE]
    assert client.chat.completions.create(model=NAME, messages=history).choices[0].message.role == "assistant"


def test_a_stream_has_the_role_first_then_pieces_and_the_usage_only_if_asked(client):
    chunks = list(client.chat.completions.create(model=NAME, messages=FRANCE, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == "Paris"
    assert len([piece for piece in pieces if piece]) > 1
    assert len({chunk.id for chunk in chunks}) == 1
    usage = {"include_usage": True}
    *_, last = client.chat.completions.create(model=NAME, messages=FRANCE, stream=True, stream_options=usage)
    assert last.choices == []
    assert last.usage.completion_tokens > 0


def test_the_helper_for_streams_gives_the_whole_answer(client):
    with client.chat.completions.stream(model=NAME, messages=FRANCE) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Paris"


def test_parse_returns_an_object(client):
    answer = client.chat.completions.parse(model=NAME, messages=FRANCE, response_format=Capital, max_tokens=64)
    assert isinstance(answer.choices[0].message.parsed, Capital)


def test_log_probabilities_of_an_answer(client):
    answer = client.chat.completions.create(model=NAME, messages=FRANCE, logprobs=True, top_logprobs=2)
    first = answer.choices[0].logprobs.content[0]
    assert first.logprob <= 0
    assert len(first.top_logprobs) == 2


def test_a_completion_continues_the_prompt(client):
    prompt = "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\n"
    assert client.completions.create(model=NAME, prompt=prompt).choices[0].text.strip() == "Paris"
    stream = client.completions.create(model=NAME, prompt=prompt, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream).strip() == "Paris"


def test_echo_with_log_probabilities_and_no_tokens_scores_the_prompt(client):
    answer = client.completions.create(model=NAME, prompt=["Paris is", "Oslo"], echo=True, logprobs=1, max_tokens=0)
    for choice, text in zip(answer.choices, ("Paris is", "Oslo"), strict=True):
        assert choice.text == text
        assert choice.logprobs.token_logprobs[0] is None
        assert all(value < 0 for value in choice.logprobs.token_logprobs[1:])
    assert answer.usage.completion_tokens == 0


def test_a_response_of_the_responses_api(client):
    response = client.responses.create(model=NAME, input="What is the capital of France?")
    assert (response.output_text, response.status) == ("Paris", "completed")
    cut = client.responses.create(model=NAME, input=[{"role": "user", "content": "Who?"}], max_output_tokens=1)
    assert cut.status == "incomplete"
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_the_events_of_the_responses_api_build_the_response(client):
    with client.responses.stream(model=NAME, input="What is the capital of France?") as stream:
        events = list(stream)
        assert stream.get_final_response().output_text == "Paris"
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert [event.sequence_number for event in events] == sorted(event.sequence_number for event in events)


def test_a_response_that_needs_memory_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="keeps no responses") as refusal:
        client.responses.create(model=NAME, input="And now?", previous_response_id="resp_1")
    assert refusal.value.param == "previous_response_id"


def test_models(client):
    (entry,) = client.models.list().data
    assert entry.id == client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError) as refusal:
        client.models.retrieve("gpt-5")
    assert refusal.value.code == "model_not_found"


def test_a_refusal_names_the_field_and_does_not_repeat_the_request(client):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=NAME, messages=[{"role": "wizard", "content": "a secret"}])
    assert refusal.value.param.startswith("messages[0]")
    assert "a secret" not in str(refusal.value)
