"""Turn conversations and texts into tokens, and tokens into text, as transformers does.

The tokenizer is the Rust library `tokenizers`, which transformers itself uses. It reads tokenizer.json.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from .chat_template import ChatTemplate, TemplateError
from .control_tokens import ControlTokens
from .plain_text import PlainTextEncoder, StandIns, load
from .stream_decoder import StreamDecoder, StreamDecoders

TOOL_CALL = "<|tool_call|>", "<|/tool_call|>"
_PROBE = "Zq7probe"


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's genai_config.json (https://onnxruntime.ai/docs/genai/reference/config.html)."""
    return json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))


class ChatTokenizer:
    """The tokenizer and the chat template of a folder. Any thread may call it."""

    def __init__(self, folder: Path, special_tokens_in_text: str = "plain") -> None:
        """
        Args:
            folder: a folder with a tokenizer.json: a checkpoint or a converted folder.
            special_tokens_in_text: what the text of a special token in a message is: "plain" text, or the "special"
                token itself, as in transformers.

        Raises:
            MlflowException: the chat template is not valid Jinja.
        """
        path = folder / "tokenizer.json"
        self._tokenizer = load(path)
        with _invalid_parameter():
            self.template = ChatTemplate.read(folder)
        self._plain = special_tokens_in_text == "plain"
        self._source = "".join(self.template.sources.values()) if self.template else ""
        sought = self.template.sought_texts if self.template else ()
        self._controls = ControlTokens(self._tokenizer, self._source, sought)
        self._plain_encoder = PlainTextEncoder(path, self._tokenizer, self._controls)
        self._decoders = StreamDecoders(self._tokenizer)
        self._dropped_roles = self.template.dropped_roles() if self.template else frozenset()
        self.supports_tools = self.template is not None and self._template_shows_tools()

    def encode_chat(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        continue_final_message: bool = False,
        variables: dict[str, Any] | None = None,
    ) -> list[int]:
        """Return the tokens of a conversation, up to the beginning of the assistant's answer.

        Args:
            messages, tools: as api.requests.ChatRequest holds them.
            continue_final_message: whether the answer goes on with the last message.
            variables: more variables of the chat template.

        Raises:
            MlflowException: there is no chat template, or it rejects the messages or leaves one out.
        """
        self._check_roles(messages)
        parsed: dict[str, Any] = {
            "messages": [_parsed(message) for message in messages],
            "tools": [*tools],
            "variables": variables or {},
        }
        try:
            stand_ins = self._stand_ins(parsed) if self._plain else None
        except UnicodeEncodeError:
            raise _not_unicode(parsed) from None
        if stand_ins:
            parsed = {name: stand_ins.replace(value) for name, value in parsed.items()}
        prompt = self._render(**parsed, continue_final_message=continue_final_message)
        try:
            if stand_ins:
                return self._plain_encoder.encode(prompt, stand_ins)
            return self._tokenizer.encode(prompt, add_special_tokens=False).ids
        except TypeError:  # tokenizers says no more than that it wants a str
            raise _not_unicode(parsed) from None

    def encode(self, text: str, name: str = "prompt") -> list[int]:
        """Return the tokens of a text, without a chat template. The text of a special token is that token.

        Args:
            name: the text's name in errors.

        Raises:
            MlflowException: the text has half a surrogate pair.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise _not_unicode({name: text}) from None

    def stream_decoder(self, continues: bool = False) -> StreamDecoder:
        """Return a decoder for the tokens of one answer. See StreamDecoders.decoder."""
        return self._decoders.decoder(continues)

    def _check_roles(self, messages: Sequence[dict[str, Any]]) -> None:
        for index, message in enumerate(messages):
            if message["role"] in self._dropped_roles:
                raise MlflowException.invalid_parameter_value(
                    f"messages[{index}].role is {message['role']!r}; this model's chat template leaves such messages "
                    "out: write what it says into a message of the user"
                )

    def _stand_ins(self, parsed: dict[str, Any]) -> StandIns | None:
        """Return stand-ins if a string of the caller has text of control tokens, else None."""
        strings = list(_strings(parsed))
        if not self._controls.may_occur(strings) or not any(map(self._controls.occurrences, strings)):
            return None
        return StandIns(self._controls, strings, self._source)

    def _template_shows_tools(self) -> bool:
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
        tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": {}}}
        for conversation in (messages, messages[1:]):
            try:
                return _PROBE in self._render(conversation, [tool], {}, False)
            except MlflowException:  # the template has no place for a system message
                continue
        return False

    def _render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        variables: dict[str, Any],
        continue_final_message: bool,
    ) -> str:
        """Return the prompt that the chat template makes of a conversation."""
        if self.template is None:
            raise MlflowException.invalid_parameter_value(
                "this model's checkpoint has no chat template: wrap it with the task llm/v1/completions"
            )
        if not self.template.reads_tool_calls:
            messages = [_with_calls_as_text(message) for message in messages]
        if tools and not self.template.reads_tools:
            messages = _with_tools_in_system(messages, tools)
        with _invalid_parameter():
            return self.template.render(
                messages,
                tools or None,
                add_generation_prompt=not continue_final_message,
                continue_final_message=continue_final_message,
                variables=variables,
            )


@contextlib.contextmanager
def _invalid_parameter() -> Iterator[None]:
    """Turn the error of a template into one for the caller: an invalid parameter, HTTP 400."""
    try:
        yield
    except TemplateError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from None


def _parsed(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose calls have their arguments as values: OpenAI's API has JSON, templates want values."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function, arguments = call["function"], call["function"]["arguments"]
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
        calls.append({**call, "function": {**function, "arguments": value}})
    return message | {"tool_calls": calls}


def _with_calls_as_text(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose calls are written into its content, as Phi-4-mini does."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in message["tool_calls"]
    ]
    text = TOOL_CALL[0] + json.dumps(calls, ensure_ascii=False) + TOOL_CALL[1]
    shown = {name: value for name, value in message.items() if name != "tool_calls"}
    return shown | {"content": (message.get("content") or "") + text}


def _with_tools_in_system(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with the tools as JSON in the system message, where Phi-4-mini's template reads them."""
    functions = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": "You are a helpful assistant with some tools."}, *messages]
    return [messages[0] | {"tools": functions}, *messages[1:]]


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings of a value of JSON's kinds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _not_unicode(value: Any) -> MlflowException:
    """Return the error that names the string with half a surrogate pair."""
    name = next(_surrogates(value, ""), "the prompt")
    return MlflowException.invalid_parameter_value(
        f"{name} has half of a surrogate pair, which is no character; expected Unicode text"
    )


def _surrogates(value: Any, name: str) -> Iterator[str]:
    """Yield the names of the strings that have half a surrogate pair."""
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield name
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _surrogates(key, f"a key of {name}")
            yield from _surrogates(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _surrogates(item, f"{name}[{index}]")
