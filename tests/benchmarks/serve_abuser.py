"""One client process of serve_abuse.py: it sends good requests, bad ones, and goes away in the middle of some.

Usage: python -m tests.benchmarks.serve_abuser URL KNOWN.json SEED REQUESTS

KNOWN.json holds {"chat": {question: answer}, "text": {prompt: continuation}}, as the model answers alone and greedily.
Output: a line of JSON for each request that came to its end, {"kind", "status", "wrong"}. The status is 0 if this
client went away. `wrong` is empty, or says what was expected and what came. serve_abuse.py kills this process at times.
"""

import asyncio
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TASKS = 6  # requests of this process at the same time
_LONG = {"max_tokens": 400, "ignore_eos": True, "stream": True}  # an answer that its client does not wait for
_BAD_BODIES: tuple[bytes, ...] = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe\x00",
    b'{"messages": []}',
    b'{"messages": "hello"}',
    b'{"messages": [{"role": "user"}]}',
    b'{"messages": [{"role": "nobody", "content": "x"}]}',
    b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1e30}',
    b'{"messages": [{"role": "user", "content": "x"}], "stream": "yes"}',
    b'{"messages": [{"role": "user", "content": "x"}], "n": 1000000}',
    b'{"messages": [{"role": "user", "content": "x"}], "stop": [[]]}',
    b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"999999999": 1}}',
    b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}}',
    b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "temprature": 1}',
    b'{"messages": [{"role": "user", "content": "' + b"long " * 20_000 + b'"}]}',
    b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
)


class Client:
    """Sends requests of random kinds."""

    def __init__(self, url: str, known: Mapping[str, Mapping[str, str]], seed: int) -> None:
        self._host, _, self._port = url.removeprefix("http://").partition(":")
        self._known, self._random = known, random.Random(seed)
        self._kinds = [self.chat, self.stream, self.text, self.responses, self.messages] * 3
        self._kinds += [self.leave_stream, self.leave_at_once, self.leave_in_body, self.bad_body, self.bad_body]

    async def run(self, requests: int) -> None:
        """Send requests, several at a time, and print what became of each."""
        remaining = iter(range(requests))

        async def task() -> None:
            for _ in remaining:
                kind = self._random.choice(self._kinds)
                status, wrong = await kind()
                print(json.dumps({"kind": kind.__name__, "status": status, "wrong": wrong}), flush=True)

        await asyncio.gather(*(task() for _ in range(_TASKS)))

    async def chat(self) -> tuple[int, str]:
        """Ask for a whole chat answer."""
        question, answer = self._pick("chat")
        status, body = await self._post("/v1/chat/completions", {"messages": _user(question)})
        return status, _compare(status, answer, lambda: json.loads(body)["choices"][0]["message"]["content"])

    async def stream(self) -> tuple[int, str]:
        """Ask for a streamed chat answer."""
        question, answer = self._pick("chat")
        status, body = await self._post("/v1/chat/completions", {"messages": _user(question), "stream": True})

        def joined() -> str:
            *events, done, end = body.decode().split("\n\n")
            assert (done, end) == ("data: [DONE]", ""), "the stream has no end"
            choices = [json.loads(event[6:])["choices"][0] for event in events if event.startswith("data: ")]
            return "".join(choice["delta"].get("content") or "" for choice in choices)

        return status, _compare(status, answer, joined)

    async def text(self) -> tuple[int, str]:
        """Ask for the continuation of a text."""
        prompt, text = self._pick("text")
        status, body = await self._post("/v1/completions", {"prompt": prompt, "max_tokens": 8})
        return status, _compare(status, text, lambda: json.loads(body)["choices"][0]["text"])

    async def responses(self) -> tuple[int, str]:
        """Ask by OpenAI's Responses API."""
        question, answer = self._pick("chat")
        status, body = await self._post("/v1/responses", {"input": question})
        return status, _compare(status, answer, lambda: json.loads(body)["output"][0]["content"][0]["text"])

    async def messages(self) -> tuple[int, str]:
        """Ask by Anthropic's API."""
        question, answer = self._pick("chat")
        status, body = await self._post("/v1/messages", {"messages": _user(question), "max_tokens": 64})
        return status, _compare(status, answer, lambda: json.loads(body)["content"][0]["text"])

    async def leave_stream(self) -> tuple[int, str]:
        """Go away after a part of a long answer, or while the prompt waits."""
        body = {"messages": _user(self._pick("chat")[0])} | _LONG
        reader, writer = await self._send("/v1/chat/completions", json.dumps(body).encode())
        for _ in range(self._random.randrange(6)):
            await reader.read(1 << self._random.randrange(4, 12))
        writer.transport.abort()
        return 0, ""

    async def leave_at_once(self) -> tuple[int, str]:
        """Go away as soon as the request is sent."""
        body = {"messages": _user(self._pick("chat")[0])} | _LONG | {"stream": self._random.random() < 0.5}
        _, writer = await self._send("/v1/chat/completions", json.dumps(body).encode())
        await asyncio.sleep(self._random.random() / 50)
        writer.transport.abort()
        return 0, ""

    async def leave_in_body(self) -> tuple[int, str]:
        """Go away before the request is complete."""
        body = json.dumps({"messages": _user(self._pick("chat")[0])}).encode()
        _, writer = await self._send("/v1/chat/completions", body[: self._random.randrange(len(body))], len(body))
        await asyncio.sleep(self._random.random() / 50)
        writer.close()
        return 0, ""

    async def bad_body(self) -> tuple[int, str]:
        """Send a body that must be refused."""
        reader, writer = await self._send("/v1/chat/completions", self._random.choice(_BAD_BODIES))
        status, body = await _answer(reader)
        writer.close()
        expected = 400 <= status < 500 and b'"error"' in body
        return status, "" if expected else f"expected a refusal, got {status}: {body[:200]!r}"

    def _pick(self, kind: str) -> tuple[str, str]:
        return self._random.choice([*self._known[kind].items()])

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        reader, writer = await self._send(path, json.dumps({"temperature": 0} | body).encode())
        answer = await _answer(reader)
        writer.close()
        return answer

    async def _send(
        self, path: str, data: bytes, length: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, int(self._port))
        size = len(data) if length is None else length
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode() + data)
        return reader, writer


def _user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def _compare(status: int, expected: str, read: Any) -> str:
    """Return what is wrong with an answer. A refusal for want of room or time is not wrong."""
    if status in (429, 503, 504):
        return ""
    try:
        got = read() if status == 200 else f"status {status}"
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    return "" if got == expected else f"expected {expected!r}, got {got!r}"


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the status and the body of a response."""
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    if not head:
        return 0, b""
    if b"chunked" in head.lower():
        parts = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            length = int(size, 16)
            parts, body = parts + body[:length], body[length + 2 :]
        body = parts
    return int(head.split()[1]), body


if __name__ == "__main__":
    _url, _known, _seed, _requests = sys.argv[1:]
    asyncio.run(Client(_url, json.loads(Path(_known).read_text()), int(_seed)).run(int(_requests)))
