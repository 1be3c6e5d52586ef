"""Drive a real headless Chromium by its DevTools protocol, as a person would: mouse, keys, and what is on the page."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = f"no Chromium: install one so that PATH has it as {', '.join(NAMES[:-1])} or {NAMES[-1]}"
_KEYS = {"Enter": 13, "Escape": 27, "Tab": 9}
_SECONDS = 60.0  # only a hang takes longer


class Page:
    """A page in the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._last = socket, 0
        self.requested: list[str] = []  # the addresses that the page asked for
        self.sent: list[dict[str, Any]] = []  # the JSON bodies that it posted
        self.complaints: list[str] = []  # errors of its script
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=_SECONDS))
            if message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            request = message["params"]["request"]
            self.requested.append(request["url"])
            if "postData" in request:
                self.sent.append(json.loads(request["postData"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))

    def js(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript. A promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + _SECONDS
        while not (value := self.js(condition)):
            assert time.monotonic() < end, f"never true: {condition}; the page: {self.js('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        """Load an address, and wait until the page has found the model or asks for a key."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && typeof greet === 'function'")

    def click(self, selector: str, text: str = "") -> None:
        """Click the middle of the last element that a selector names, and whose text is `text` if that is given."""
        matching = f"[...document.querySelectorAll({json.dumps(selector)})]"
        if text:
            matching += f".filter(found => found.textContent.trim() === {json.dumps(text)})"
        self.wait(f"{matching}.length > 0")
        middle = "(found => { found.scrollIntoView({block: 'nearest'}); const box = found.getBoundingClientRect();"
        middle += " return [box.x + box.width / 2, box.y + box.height / 2]; })"
        x, y = self.js(f"{middle}({matching}.at(-1))")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Type a text into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, shift: bool = False) -> None:
        """Press a key."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key], "modifiers": 8 if shift else 0}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def text(self, selector: str) -> str:
        """Return the text of the last element that a selector names, as a person sees it."""
        return str(self.js(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1)?.innerText ?? ''"))

    def focused(self) -> str:
        """Return the id of the element that has the focus."""
        return str(self.js("document.activeElement.id"))

    def look(self, width: int, height: int, dark: bool) -> None:
        """Change the size of the window and the colours of the system."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, file: Path) -> None:
        """Write what the window shows as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Run Chromium with a profile in an empty folder, and yield its one page."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [str(CHROMIUM), *flags, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(folder, process), max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(30)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the WebSocket of the page, as soon as Chromium has written its port."""
    port, end = folder / "DevToolsActivePort", time.monotonic() + _SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"Chromium ended with {process.returncode}"
        with contextlib.suppress(OSError, IndexError, StopIteration, requests.exceptions.ConnectionError):
            targets = requests.get(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list", timeout=10).json()
            return str(next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"))
        time.sleep(0.1)
    raise AssertionError("Chromium did not open its port")
