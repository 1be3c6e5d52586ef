"""ONNX Runtime GenAI's tokenizer and chat template of a converted folder, without loading the model."""

import base64
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the runtime is imported

import onnxruntime_genai as og  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

# The runtime takes a tokenizer from a loaded model only, and the weights are in ONNX Runtime already. So it is given
# the folder's small files and a graph of one node, input_ids -> Identity -> logits, int64 [1, 1] (opset 17, IR 8).
_STUB = base64.b64decode(
    "CAg6XAodCglpbnB1dF9pZHMSBmxvZ2l0cyIISWRlbnRpdHkSBHN0dWJaGwoJaW5wdXRfaWRzEg4KDAgHEggKAggBCgIIAWIYCgZsb2dpdHMSDgoMCAcSCAoC"
    "CAEKAggBQgQKABAR"
)
_NOT_TOKENIZER = ("*.onnx", "*.onnx.data", "*.onnx_data", "*.safetensors")
TOOL_CALL = "<|tool_call|>", "<|/tool_call|>"


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's genai_config.json (https://onnxruntime.ai/docs/genai/reference/config.html)."""
    return json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))


def load_tokenizer(folder: Path) -> og.Tokenizer:
    """The runtime's tokenizer of a converted folder; its weights are not read."""
    with tempfile.TemporaryDirectory() as scratch:
        stub = shutil.copytree(folder, Path(scratch) / "stub", ignore=shutil.ignore_patterns(*_NOT_TOKENIZER))
        (stub / read_config(stub)["model"]["decoder"]["filename"]).write_bytes(_STUB)
        return og.Tokenizer(og.Model(str(stub)))


class Prompts:
    """Makes prompts of messages. The binding holds the interpreter lock in every call, so any thread may call it."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)
        probe = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
        tool = [{"type": "function", "function": {"name": "probe", "description": "", "parameters": {}}}]
        try:
            self.takes_tools = "probe" in self._render(probe, tool)
        except MlflowException:  # a template that knows no system message
            self.takes_tools = False

    def chat(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation, up to where the assistant begins.

        Args:
            messages: of the protocol; see protocol.parse_chat.

        Raises:
            MlflowException: the template refuses the messages.
        """
        return self.text(self._render(messages, tools))

    def text(self, prompt: str) -> list[int]:
        """The tokens of a text, as it is."""
        return self._tokenizer.encode(prompt).tolist()

    def stream(self) -> Any:
        """A decoder of one answer: `decode(token)` gives the text that is complete by then."""
        return self._tokenizer.create_stream()

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        """Phi-4-mini's template takes tools from its system message, as JSON; others take them as an argument."""
        shown = [{"role": m["role"], "content": _content(m)} for m in messages]
        extra = {}
        if tools:
            functions = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
            if shown[0]["role"] != "system":
                shown.insert(0, {"role": "system", "content": "You are a helpful assistant with some tools."})
            shown[0]["tools"] = functions
            extra["tools"] = json.dumps(tools)
        try:
            return self._tokenizer.apply_chat_template(
                json.dumps(shown, ensure_ascii=False), add_generation_prompt=True, **extra
            )
        except Exception as error:  # the binding raises bare exceptions
            raise MlflowException.invalid_parameter_value(
                f"messages: the chat template refuses them: {error}"
            ) from None


def _content(message: dict[str, Any]) -> str:
    """What the template shows of a message: an assistant's calls as the model wrote them."""
    if not message.get("tool_calls"):
        return message["content"]
    calls = [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in message["tool_calls"]
    ]
    return (message["content"] or "") + TOOL_CALL[0] + json.dumps(calls, ensure_ascii=False) + TOOL_CALL[1]
