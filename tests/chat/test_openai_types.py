"""Every response, whole or in chunks, is valid for the types of the package openai."""

import pytest

from tests.chat.models import CHAT, FRANCE, TOOL

pytestmark = pytest.mark.model
pytest.importorskip("openai")
CALL = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
REQUESTS = [
    (CHAT, {}),
    (CHAT, {"n": 3, "temperature": 1, "seed": 1, "stream_options": {"include_usage": True}}),
    (CHAT, {"logprobs": True, "top_logprobs": 3}),
    (CHAT, {"max_tokens": 1}),
    ("tools", CALL),
    ("tools", CALL | {"parallel_tool_calls": False, "stream_options": {"include_usage": True}}),
]


@pytest.mark.parametrize(("model", "fields"), REQUESTS)
def test_a_chat_response_and_its_chunks_are_openais(models, model, fields):
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    (response,) = models[model].predict({"messages": FRANCE} | fields)
    whole = ChatCompletion.model_validate(response, strict=True)
    assert whole.model_dump()["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")
    chunks = list(models[model].predict_stream({"messages": FRANCE} | fields))
    read = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in read}) == 1
    usages = [chunk.usage for chunk in read if chunk.usage]
    assert len(usages) == ("stream_options" in fields) and (not usages or read[-1].choices == [])


def test_a_response_is_valid_history(models):
    from openai.types.chat import ChatCompletion

    request = {"messages": FRANCE, **CALL}
    answer = ChatCompletion.model_validate(models["tools"].predict(request)[0]).choices[0].message
    history = [*FRANCE, answer.model_dump()]
    history += [{"role": "tool", "content": "5", "tool_call_id": call.id} for call in answer.tool_calls or []]
    (response,) = models["tools"].predict({"messages": history, "tools": [TOOL], "max_tokens": 4})
    assert response["usage"]["completion_tokens"] > 0


def test_a_text_completion_and_its_chunks_are_openais(models):
    from openai.types import Completion

    service = models[CHAT].unwrap_python_model()._service
    body = {"prompt": ["Who are you?", "Count"], "n": 2, "logprobs": 2, "max_tokens": 4, "model": "m"}
    response = Completion.model_validate(service.text_completion(body), strict=True)
    assert [choice.index for choice in response.choices] == [0, 1, 2, 3]
    sent = list(service.stream_text_completion(body))
    for chunk in sent:  # the API's stream has null until the last chunk, and the type has no null
        chunk["choices"][0]["finish_reason"] = chunk["choices"][0]["finish_reason"] or "stop"
    chunks = [Completion.model_validate(chunk, strict=True) for chunk in sent]
    for choice in response.choices:
        parts = [part.choices[0] for part in chunks if part.choices[0].index == choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert parts[-1].finish_reason == choice.finish_reason
        offsets = [offset for part in parts for offset in (part.logprobs.text_offset if part.logprobs else [])]
        assert choice.logprobs is not None and offsets == choice.logprobs.text_offset
