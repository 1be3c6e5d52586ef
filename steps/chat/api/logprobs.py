"""Write log probabilities as the OpenAI API has them: the form of chat, and the older form of completions."""

import codecs
from collections.abc import Callable, Sequence
from typing import Any

from ..batching.logprobs import TokenLogprob

TokenBytes = Callable[[int], bytes]  # token -> the bytes that it stands for


def chat_logprobs(logprobs: Sequence[TokenLogprob], token_bytes: TokenBytes) -> dict[str, Any]:
    """Return the key `logprobs` of a choice of a chat: text, bytes and log probability of each token."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = token_bytes(token)
        return {"token": text_of(data), "logprob": logprob, "bytes": list(data)}

    content = [
        entry(token.token, token.logprob) | {"top_logprobs": [entry(*other) for other in token.top]}
        for token in logprobs
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokens: Sequence[tuple[int, TokenLogprob | None]], token_bytes: TokenBytes, offset: int = 0
) -> dict[str, Any]:
    """Return the key `logprobs` of a choice of a completion.

    Args:
        tokens: each token, and its log probability; None for the first token of a prompt.
        offset: characters of the text before the first token.
    """
    names: list[str] = []
    offsets: list[int] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token, _ in tokens:
        data = token_bytes(token)
        names.append(text_of(data))
        offsets.append(offset)
        offset += len(decoder.decode(data))
    return {
        "tokens": names,
        "token_logprobs": [logprob.logprob if logprob else None for _, logprob in tokens],
        "top_logprobs": [_top(logprob, token_bytes) if logprob else None for _, logprob in tokens],
        "text_offset": offsets,
    }


def text_of(data: bytes) -> str:
    """Return the text of a token. A part of a character becomes the replacement character."""
    return data.decode("utf-8", "replace")


def _top(logprob: TokenLogprob, token_bytes: TokenBytes) -> dict[str, float]:
    """Return the log probabilities of the token and its alternatives. Of tokens with one text the likeliest stays."""
    pairs = sorted({*logprob.top, (logprob.token, logprob.logprob)}, key=lambda pair: pair[1])
    likeliest = {text_of(token_bytes(token)): value for token, value in pairs}
    return dict(sorted(likeliest.items(), key=lambda pair: -pair[1]))
