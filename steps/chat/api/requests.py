"""Parse the requests of `llm/v1/chat`, and the rows and parameters of `llm/v1/completions`.

The fields mean what they mean in the OpenAI API, https://platform.openai.com/docs/api-reference/chat, and the further
ones what they mean in llama.cpp and vLLM. README.md of this package lists them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .fields import boolean, invalid, present, whole_number
from .known_fields import CHAT_FIELDS, check_names, unknown
from .messages import check_continued, read_messages
from .response_format import parse_response_format
from .sampling import Sampling as Sampling
from .sampling import read_chat_logprobs, read_sampling
from .tools import calls_format, read_tools

MAX_CHOICES = 16


@dataclass(frozen=True)
class ChatRequest:
    """A valid request for `n` answers to a conversation."""

    messages: list[dict[str, Any]]
    sampling: Sampling
    n: int = 1
    tools: list[dict[str, Any]] = field(default_factory=list)
    parallel_tool_calls: bool = True
    continue_final_message: bool = False
    template_variables: dict[str, Any] = field(default_factory=dict)  # the field chat_template_kwargs
    include_usage: bool = False  # the last chunk of a stream has the usage
    ignored: tuple[str, ...] = ()  # fields that change nothing


def parse_chat(row: Mapping[str, Any], default_max_tokens: int, supports_tools: bool) -> ChatRequest:
    """Return the request of a row: a row of a DataFrame, or the request itself.

    Args:
        supports_tools: whether the model's chat template shows tools.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE (HTTP 400). The message names the field.
    """
    fields = present(row)
    messages = read_messages(fields.get("messages"), supports_tools)
    ignored = check_names(fields, CHAT_FIELDS)
    if fields.get("custom_inputs"):
        raise invalid("custom_inputs", fields["custom_inputs"], "this model has none: leave it out")
    parallel_tool_calls = boolean({"parallel_tool_calls": True} | fields, "parallel_tool_calls")
    tools, callable_tools = read_tools(fields, supports_tools)
    response_format = parse_response_format(fields.get("response_format"))
    if callable_tools:
        if response_format:
            shown = fields["response_format"]
            raise invalid("response_format", shown, "leave it out when tool_choice requires a call")
        response_format = calls_format(callable_tools, parallel_tool_calls)
    if continued := boolean(fields, "continue_final_message"):
        check_continued(messages)
    variables = fields.get("chat_template_kwargs", {})
    if not isinstance(variables, Mapping):
        raise invalid("chat_template_kwargs", variables, "expected an object of variables of the chat template")
    sampling = read_sampling(fields, default_max_tokens, response_format)
    return ChatRequest(
        messages=messages,
        sampling=replace(sampling, logprobs=read_chat_logprobs(fields)),
        n=whole_number(fields, "n", 1, minimum=1, maximum=MAX_CHOICES),
        tools=tools,
        parallel_tool_calls=parallel_tool_calls,
        continue_final_message=continued,
        template_variables=dict(variables),
        include_usage=read_stream_options(fields),
        ignored=ignored,
    )


def read_stream_options(fields: Mapping[str, Any]) -> bool:
    """Return whether a stream ends with a chunk that has the usage.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE. The message names the field.
    """
    boolean(fields, "stream")
    options = fields.get("stream_options", {})
    if not isinstance(options, Mapping):
        raise invalid("stream_options", options, "expected an object")
    known = {"include_usage", "include_obfuscation"}
    given = present(options)
    for name in given:
        if name not in known:
            raise unknown(name, known, within="stream_options.")
    return boolean({"stream_options.include_usage": given.get("include_usage", False)}, "stream_options.include_usage")


def parse_prompt(row: Mapping[str, Any]) -> str:
    """Return the prompt of a row of `llm/v1/completions`.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE. The message names the field.
    """
    prompt = present(row).get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("prompt", prompt, "expected a text that is not empty")
    return prompt


def parse_params(params: Mapping[str, Any], default_max_tokens: int) -> Sampling:
    """Return the parameters of `llm/v1/completions`, which apply to all rows. Objects among them are JSON texts.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE. The message names the parameter.
    """
    fields = present(params)
    for name, absent in (("seed", -1), ("response_format", ""), ("logit_bias", "")):  # MLflow has no default None
        if fields.get(name) == absent:
            del fields[name]
    for name in ("response_format", "logit_bias"):
        if isinstance(fields.get(name), str):
            try:
                fields[name] = json.loads(fields[name])
            except (ValueError, RecursionError):
                expected = "expected JSON, with the content that llm/v1/chat takes"
                raise invalid(name, fields[name], expected) from None
    return read_sampling(fields, default_max_tokens, parse_response_format(fields.get("response_format")))
