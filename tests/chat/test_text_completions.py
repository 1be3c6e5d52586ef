"""The requests of /v1/completions: prompts as texts or tokens, echo, and log probabilities of prompts and answers."""

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from tests.chat.models import CHAT

pytestmark = pytest.mark.model
PROMPT = "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\n"


@pytest.fixture
def service(models):
    return models[CHAT].unwrap_python_model()._service


def reference(service, tokens: list[int]) -> np.ndarray:
    """Return the log probabilities of the tokens after the first, from the graph itself."""
    import onnxruntime as ort

    from steps.chat.runtime.session import open_session

    session = open_session(service.folder, 1, "cpu", 1)
    assert isinstance(session._session, ort.InferenceSession)
    logits = session.prefill(0, tokens, 0, 0, len(tokens)).astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logprobs[np.arange(len(tokens) - 1), tokens[1:]]


def test_a_prompt_is_continued_with_16_tokens_by_default(service):
    response = service.text_completion({"prompt": PROMPT})
    assert response["object"] == "text_completion" and response["id"].startswith("cmpl-")
    (choice,) = response["choices"]
    assert choice == {"index": 0, "text": "Paris", "logprobs": None, "finish_reason": "stop"}
    assert response["usage"]["completion_tokens"] == 3
    assert service.text_completion({"prompt": PROMPT, "ignore_eos": True})["usage"]["completion_tokens"] == 16


def test_echo_and_logprobs_without_an_answer_give_the_likelihood_of_the_prompt(service):
    text = PROMPT + "Paris<|end|>\n" + "word " * 40  # longer than one chunk of the prefill
    request = {"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 0}
    (choice,) = service.text_completion(request)["choices"]
    logprobs, tokens = choice["logprobs"], service.engine.tokenizer.encode(text)
    assert (choice["text"], choice["finish_reason"], len(logprobs["tokens"])) == (text, "length", len(tokens))
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    assert np.allclose(logprobs["token_logprobs"][1:], reference(service, tokens), atol=1e-4)
    assert all(
        max(top.values()) >= value
        for top, value in zip(logprobs["top_logprobs"][1:], logprobs["token_logprobs"][1:], strict=True)
    )
    assert logprobs["text_offset"][-1] == len(text) - len(logprobs["tokens"][-1])
    assert "".join(logprobs["tokens"]) == text
    again = service.text_completion(request)["choices"][0]
    assert np.allclose(again["logprobs"]["token_logprobs"][1:], logprobs["token_logprobs"][1:], atol=1e-4)
    as_tokens = service.text_completion(request | {"prompt": tokens})["choices"][0]
    assert as_tokens == again


def test_the_last_log_probability_is_the_answers_even_if_it_is_the_end_token(service):
    """lm-eval's local-completions asks for one token, and drops the last entry."""
    tokens = service.engine.tokenizer.encode(PROMPT + "Paris")
    request = {"prompt": [tokens], "echo": True, "logprobs": 1, "max_tokens": 1}
    logprobs = service.text_completion(request)["choices"][0]["logprobs"]
    assert len(logprobs["token_logprobs"]) == len(tokens) + 1 and logprobs["tokens"][-1] == "<|end|>"


def test_log_probabilities_come_before_temperature_bias_and_penalties(service):
    plain = service.text_completion({"prompt": PROMPT, "logprobs": 3})["choices"][0]["logprobs"]
    changed = {
        "temperature": 0.1,
        "seed": 1,
        "frequency_penalty": 1,
        "repetition_penalty": 1.2,
        "logit_bias": {"7": -9},
    }
    sampled = service.text_completion({"prompt": PROMPT, "logprobs": 3} | changed)["choices"][0]["logprobs"]
    assert sampled["tokens"] == plain["tokens"] == ["Par", "is", "<|end|>"]
    assert np.allclose(sampled["token_logprobs"], plain["token_logprobs"], atol=1e-4)
    assert all(len(top) == 3 for top in plain["top_logprobs"])


def test_tokens_behind_a_stop_string_have_no_log_probability(service):
    count = "<|user|>\nCount from 1 to 40.<|end|>\n<|assistant|>\n"
    choice = service.text_completion({"prompt": count, "stop": " 4", "logprobs": 0, "max_tokens": 20})["choices"][0]
    assert "4" not in choice["text"] and "".join(choice["logprobs"]["tokens"]) == choice["text"]
    streamed = list(service.stream_text_completion({"prompt": count, "stop": " 4", "logprobs": 0, "max_tokens": 20}))
    tokens = [token for part in streamed for token in part["choices"][0]["logprobs"]["tokens"]]
    assert tokens == choice["logprobs"]["tokens"]


def test_a_stream_begins_with_the_prompt_if_it_is_wanted(service):
    request = {"prompt": PROMPT, "echo": True, "logprobs": 1, "stream_options": {"include_usage": True}}
    first, *rest, last = service.stream_text_completion(request)
    assert first["choices"][0]["text"] == PROMPT and len(first["choices"][0]["logprobs"]["tokens"]) == 15
    assert "".join(chunk["choices"][0]["text"] for chunk in rest) == "Paris"
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": [PROMPT, ""]}, "prompt"),
        ({"prompt": [PROMPT, "word " * 5000]}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"top_logprobs": 3}, "top_logprobs"),
    ],
)
def test_a_field_that_is_not_right_is_refused_at_the_call(service, fields, param):
    for call in (service.text_completion, service.stream_text_completion):
        with pytest.raises(MlflowException) as caught:
            call({"prompt": PROMPT} | fields)
        assert caught.value.param == param
