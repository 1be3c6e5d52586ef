"""Score an answer without a reference answer: what can be seen to be wrong with it, and whether it declines.

| flaw | an answer has it if |
| --- | --- |
| empty | it has no text |
| wrong format | the request asked for JSON, or for a JSON schema, and the answer does not fit |
| repetition | most of its parts of 12 characters occur more than once |
| other script | most of its letters are of a script, such as Cyrillic, that the question has no letter of |
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from steps.evaluation.inputs.question import Question

_PART, _LONG = 12, 100  # characters; a shorter answer may repeat itself
_DISTINCT = 0.5  # of the parts of an answer, at least
_LETTERS = 3  # of a script, at least, in a question and in an answer that are compared
_READ = 4_000  # characters of a question or an answer; the rest of a long text does not change its script
# The first words of an answer that declines, in lower case. Other languages are not known.
_DECLINES = re.compile(
    r"(?:(?:i['’]?m|i am|we['’]?re|we are) (?:\w+ )?(?:sorry|unable|not able)"
    r"|(?:sorry|unfortunately|apologies|i apologi[sz]e)\b[^.!?]{0,80}\b(?:can(?:not|['’]t| not)|unable|won['’]t)"
    r"|(?:i|we) (?:can(?:not|['’]t| not)|won['’]t|will not|am unable|must decline|refuse)\b"
    r"|as an? (?:ai|language model|artificial)\b)"
)


def declines(answer: str) -> bool:
    """Return whether an answer begins as a refusal in English does."""
    return bool(_DECLINES.match(" ".join(answer[:200].lower().split())))


def flaw(question: str, answer: str, response_format: Mapping[str, Any] | None) -> str:
    """Return what is wrong with an answer, in words; empty if nothing is seen.

    Args:
        question: the text of the last message.
        response_format: of the request, as OpenAI's chat has it; None for none.
    """
    if not answer.strip():
        return "empty"
    if problem := _format_problem(answer, response_format):
        return f"wrong format: {problem}"
    if _repeats(answer):
        return "repetition"
    return _other_script(question[-_READ:], answer[:_READ])


def _format_problem(answer: str, response_format: Mapping[str, Any] | None) -> str:
    kind = (response_format or {}).get("type")
    if response_format is None or kind not in ("json_object", "json_schema"):
        return ""
    schema = (response_format.get("json_schema") or {}).get("schema") if kind == "json_schema" else {"type": "object"}
    return Question([], schema, "json_schema").mistake(answer) if isinstance(schema, dict) else ""


def _repeats(answer: str) -> bool:
    text = " ".join(answer.split())
    parts = [text[start : start + _PART] for start in range(len(text) - _PART + 1)]
    return len(text) >= _LONG and len(set(parts)) < _DISTINCT * len(parts)


def _other_script(question: str, answer: str) -> str:
    asked, answered = _scripts(question), _scripts(answer)
    if asked.total() < _LETTERS or answered.total() < _LETTERS:
        return ""
    script, letters = answered.most_common(1)[0]
    return f"other script: {script.capitalize()}" if letters > answered.total() / 2 and not asked[script] else ""


def _scripts(text: str) -> Counter[str]:
    """Return the number of letters by script: the first word of a letter's name in Unicode, such as LATIN or CJK."""
    names = (unicodedata.name(letter, "") for letter in text if letter.isalpha())
    return Counter(name.partition(" ")[0] for name in names if name)
