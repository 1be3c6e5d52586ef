"""Load the tokenizer and the chat template of a converted folder, without the model's weights."""

import base64
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime-genai reads it when it is imported

import onnxruntime_genai as og  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from .reasoning import template_text  # noqa: E402

# onnxruntime-genai makes a tokenizer from a loaded model only, and the weights are in ONNX Runtime already. So it loads
# the folder's small files with a graph of one node: input_ids -> Identity -> logits, int64 [1, 1] (opset 17, IR 8).
_STUB = base64.b64decode(
    "CAg6XAodCglpbnB1dF9pZHMSBmxvZ2l0cyIISWRlbnRpdHkSBHN0dWJaGwoJaW5wdXRfaWRzEg4KDAgHEggKAggBCgIIAWIYCgZsb2dpdHMSDgoMCAcSCAoC"
    "CAEKAggBQgQKABAR"
)
_WEIGHT_FILES = ("*.onnx", "*.onnx.data", "*.onnx_data", "*.safetensors")
TOOL_CALL = "<|tool_call|>", "<|/tool_call|>"


class StreamDecoder(Protocol):
    """Turns the tokens of one answer into text."""

    def decode(self, token: int) -> str:
        """Return the text that this token completes. A token may end within a character; then its text comes later."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's genai_config.json (https://onnxruntime.ai/docs/genai/reference/config.html)."""
    return json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))


def load_tokenizer(folder: Path) -> og.Tokenizer:
    """Return onnxruntime-genai's tokenizer of a converted folder. It does not read the weights."""
    with tempfile.TemporaryDirectory() as scratch:
        stub = shutil.copytree(folder, Path(scratch) / "stub", ignore=shutil.ignore_patterns(*_WEIGHT_FILES))
        (stub / read_config(stub)["model"]["decoder"]["filename"]).write_bytes(_STUB)
        return og.Tokenizer(og.Model(str(stub)))


class ChatTokenizer:
    """Turns conversations and texts into tokens, and tokens into text.

    Any thread may call it: onnxruntime-genai holds the interpreter lock during every call.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._shows_thoughts = "reasoning_content" in template_text(folder)
        self.supports_tools = self._template_shows_tools()

    def encode_chat(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[int]:
        """Return the tokens of a conversation, up to the beginning of the assistant's answer.

        Args:
            messages, tools: as api.requests.ChatRequest holds them.

        Raises:
            MlflowException: the chat template rejects the messages.
        """
        return self.encode(self._render(messages, tools))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without a chat template."""
        return self._tokenizer.encode(text).tolist()

    def stream_decoder(self) -> StreamDecoder:
        """Return a decoder for the tokens of one answer."""
        return self._tokenizer.create_stream()

    def _template_shows_tools(self) -> bool:
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
        tool = {"type": "function", "function": {"name": "probe", "description": "", "parameters": {}}}
        try:
            return "probe" in self._render(messages, [tool])
        except MlflowException:  # the template has no place for a system message
            return False

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        """Return the prompt that the chat template makes of a conversation."""
        # Phi-4-mini's template reads the tools from the system message, as JSON. Others read the argument `tools`.
        shown: list[dict[str, Any]] = [{"role": message["role"], "content": _content(message)} for message in messages]
        if self._shows_thoughts:  # most templates leave the thoughts of earlier answers out
            for entry, message in zip(shown, messages, strict=True):
                entry |= {name: message[name] for name in ("reasoning_content",) if name in message}
        arguments: dict[str, str] = {}
        if tools:
            functions = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
            if shown[0]["role"] != "system":
                shown.insert(0, {"role": "system", "content": "You are a helpful assistant with some tools."})
            shown[0]["tools"] = functions
            arguments["tools"] = json.dumps(tools)
        try:
            return self._tokenizer.apply_chat_template(
                json.dumps(shown, ensure_ascii=False), add_generation_prompt=True, **arguments
            )
        except Exception as error:  # onnxruntime-genai raises plain exceptions
            raise MlflowException.invalid_parameter_value(
                f"messages: the chat template rejected them: {error}"
            ) from None


def _content(message: dict[str, Any]) -> str:
    """Return the content of a message for the template. The calls of an assistant are written as Phi-4-mini does."""
    if not message.get("tool_calls"):
        return message["content"]
    calls = [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in message["tool_calls"]
    ]
    return (message["content"] or "") + TOOL_CALL[0] + json.dumps(calls, ensure_ascii=False) + TOOL_CALL[1]
