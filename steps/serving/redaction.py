"""Take secrets and addresses out of texts before they are kept."""

import re
from typing import Any

# What is replaced, in this order: longer kinds first, because a URL can hold an e-mail address.
_KINDS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    "a URL's password": r"(?<=://)[^\s/@:]*:[^\s/@]*(?=@)",
    "a token": r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON web token
    r"|\b(?:sk|pk|rk|hf|ghp|gho|ghs|ghu|glpat|xox[abprs]|dapi|npm|pypi|AKIA|ASIA|AIza)[-_]?[A-Za-z0-9_-]{16,}",
    "a password": r"(?i)(?<=bearer )[\w.~+/=-]{8,}"
    r"|(?<![A-Za-z])(?:password|passwd|secret|api[_-]?key|token)\s*[:=]\s*['\"]?(?!<)[^\s'\",;]{4,}",
    "an e-mail address": r"\b[\w.%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\b",
    "an IP address": r"\b(?:\d{1,3}\.){3}\d{1,3}\b|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}[0-9A-Fa-f]{1,4}(?![\w:])"
    r"|(?<![\w:])(?=[A-Fa-f:]*\d)(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:])",
    "a phone number": r"(?<![\w.])\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}(?!\w)",
    "a card number": r"(?<!\d)(?:\d{4}[ -]?){3}\d{1,7}(?!\d)",
}
_PATTERNS = {name: re.compile(pattern, re.DOTALL) for name, pattern in _KINDS.items()}


def redact(text: str) -> str:
    """Return a text with `<an e-mail address>`, and the like, in place of secrets and addresses."""
    for name, pattern in _PATTERNS.items():
        text = pattern.sub(f"<{name}>", text)
    return text


def redact_value(value: Any) -> Any:
    """Return a value of JSON's kinds with its texts redacted. Keys stay as they are."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_value(item) for key, item in value.items()}
    return [redact_value(item) for item in value] if isinstance(value, list) else value
