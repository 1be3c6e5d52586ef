"""Read a checkpoint's chat template and render it, as transformers does.

A template is a program of other people. It runs in jinja2's sandbox, with limits of size and of time. What it refuses,
and every error in it, is a TemplateError with the template's own words.
"""

import copy
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from .deadline import run_within
from .template_files import added_tokens, special_tokens, template_sources
from .template_limits import TemplateLimitError, within_limits
from .template_sandbox import TemplateEnvironment

SECONDS = 5.0  # that one rendering may take
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_MARK = "Zq7marker"  # a text that no template contains
_ENVIRONMENT = TemplateEnvironment()


class TemplateError(Exception):
    """A template that cannot be read, or that rejects a conversation. The message has the template's own words.

    It is no MlflowException, because fetch_model tries templates in a process that does without the import of MLflow.
    """


class ChatTemplate:
    """The chat template of a folder, with the special tokens that it may name."""

    def __init__(self, sources: dict[str, str], special_tokens: dict[str, Any]) -> None:
        """
        Args:
            sources: the name of each template -> its source. A checkpoint with one template calls it "default".
            special_tokens: the variables bos_token, eos_token and so on.

        Raises:
            TemplateError: a template is not valid Jinja.
        """
        self.sources, self._special_tokens = sources, special_tokens
        try:
            self._templates = {name: _ENVIRONMENT.from_string(source) for name, source in sources.items()}
        except Exception as error:  # also what Python's compiler says of the code that Jinja makes
            raise TemplateError(f"the chat template cannot be read: {_words(error)}") from None

    @classmethod
    def read(cls, folder: Path) -> "ChatTemplate | None":
        """Return the chat template of a folder; None if it has none.

        Raises:
            TemplateError: the template is not valid Jinja.
        """
        sources = template_sources(folder)
        return cls(sources, special_tokens(folder)) if sources else None

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: dict[str, Any] | None = None,
    ) -> str:
        """Return the prompt of a conversation.

        Args:
            tools: functions in OpenAI's form; None if the request has none.
            add_generation_prompt: whether the prompt ends with the beginning of the assistant's answer.
            continue_final_message: whether the prompt ends with the last message, which the answer goes on with.
            variables: more variables of the template.

        Raises:
            TemplateError: the template refuses the conversation, has an error, or exceeds a limit.
        """
        shown = [*messages]
        if continue_final_message:
            shown = copy.deepcopy(shown)
            shown[-1]["content"] += _CONTINUE_TAG
        template = self._templates[self._choose(tools)]
        arguments = {
            **self._special_tokens,
            **(variables or {}),
            "messages": shown,
            "tools": None if tools is None else [*tools],
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }

        try:
            prompt = run_within(SECONDS, lambda: within_limits(lambda: template.render(arguments)))
        except TimeoutError as error:
            raise TemplateError(f"the chat template does not end: {error}") from None
        except TemplateLimitError as error:
            raise TemplateError(f"the chat template exceeds a limit: {error}") from None
        except Exception as error:  # a template can raise whatever Python does
            raise TemplateError(f"messages: the chat template rejected them: {_words(error)}") from None
        return _cut_at_tag(prompt, messages[-1]["content"]) if continue_final_message else prompt

    @cached_property
    def reads_tools(self) -> bool:
        """Whether a template uses the variable `tools`."""
        return any(
            isinstance(node, nodes.Name) and node.name == "tools" and node.ctx == "load"
            for source in self.sources.values()
            for node in _ENVIRONMENT.parse(source).find_all(nodes.Name)
        )

    @cached_property
    def reads_tool_calls(self) -> bool:
        """Whether a template shows the tool calls of a message by itself."""
        return any("tool_calls" in source for source in self.sources.values())

    @cached_property
    def sought_texts(self) -> frozenset[str]:
        """The texts that a template looks for in what it is given, `'</think>' in content` for example."""
        texts: set[str] = set()
        for source in self.sources.values():
            tree = _ENVIRONMENT.parse(source)
            for comparison in tree.find_all(nodes.Compare):
                if isinstance(comparison.expr, nodes.Const) and comparison.ops[0].op in ("in", "notin"):
                    texts.add(str(comparison.expr.value))
            for call in tree.find_all(nodes.Call):
                if isinstance(call.node, nodes.Getattr):
                    texts.update(str(argument.value) for argument in call.args if isinstance(argument, nodes.Const))
        return frozenset(texts)

    def dropped_roles(self) -> frozenset[str]:
        """Return the roles whose messages the template leaves out without a word."""
        return frozenset(role for role in ("system", "assistant", "tool") if self._drops(role))

    def _drops(self, role: str) -> bool:
        user = {"role": "user", "content": "u"}
        message: dict[str, Any] = {"role": role, "content": _MARK}
        conversations = [{"system": [message, user], "assistant": [user, message, user]}.get(role, [user, message])]
        if role == "tool":
            function = {"name": "f", "arguments": {}}
            call = {"id": "call00000", "type": "function", "function": function}
            calls = {"role": "assistant", "content": "", "tool_calls": [call]}
            conversations.append([user, calls, message | {"tool_call_id": "call00000", "name": "f"}])
        prompts = []
        for conversation in conversations:
            try:
                prompts.append(self.render(conversation))
            except TemplateError:  # it refuses the role with its own words, or wants another conversation
                continue
        return bool(prompts) and all(_MARK not in prompt for prompt in prompts)

    def _choose(self, tools: Sequence[dict[str, Any]] | None) -> str:
        name = "tool_use" if tools is not None and "tool_use" in self.sources else "default"
        if name not in self.sources:
            names = ", ".join(sorted(self.sources))
            raise TemplateError(f"the checkpoint has the chat templates {names}, and none that is called default")
        return name


def check_template(folder: Path) -> str | None:
    """Return what is wrong with a folder's chat template; None if nothing is, or if there is no template.

    It renders conversations of several kinds. A template may refuse some of them, but not a user's message.
    """
    user, assistant = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}
    system, tool = {"role": "system", "content": "Be brief."}, {"role": "tool", "content": "42"}
    function = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
    try:
        template = ChatTemplate.read(folder)
        if template is None:
            return None
        template.render([user])
    except TemplateError as error:
        return str(error)
    for conversation in ([user, assistant, user], [system, user], [user, assistant, tool], [user, assistant] * 50):
        for tools in (None, [{"type": "function", "function": function}]):
            try:
                template.render(conversation, tools)
            except TemplateError as error:
                if isinstance(error.__context__, TimeoutError | TemplateLimitError):
                    return str(error)
    return None


def chat_problem(folder: Path) -> str | None:
    """Return why a folder cannot answer chat requests, as a clause; None if it can."""
    try:
        return None if ChatTemplate.read(folder) else "the checkpoint has no chat template"
    except TemplateError as error:
        return str(error)


def turn_end_token(folder: Path) -> str | None:
    """Return the token with which a folder's chat template ends a turn of the assistant; None if it uses no token."""
    user = {"role": "user", "content": "u"}
    try:
        template = ChatTemplate.read(folder)
        if template is None:
            return None
        prompt = template.render([user, {"role": "assistant", "content": _MARK}], add_generation_prompt=False)
    except TemplateError:
        return None
    rest = prompt.rpartition(_MARK)[2].lstrip()
    return max((token for token in added_tokens(folder) if token and rest.startswith(token)), key=len, default=None)


def _cut_at_tag(prompt: str, content: str) -> str:
    """Return the prompt up to the end of its last message."""
    tag = _CONTINUE_TAG.strip()
    if content.strip() not in prompt or tag not in prompt:
        raise TemplateError(
            "messages: the chat template leaves out or changes the last message, so it cannot be continued"
        )
    end = prompt.rindex(tag)
    kept = prompt[end:].startswith(_CONTINUE_TAG)
    return prompt[:end] if kept else prompt[:end].rstrip()  # a template that trims the message loses its spaces


def _words(error: BaseException) -> str:
    """Return an error in one line."""
    line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    words = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return f"{words[:500]}{line}"
