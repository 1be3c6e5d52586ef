"""The chat page in a real headless Chromium, against a real server: each thing that a person can do with it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.serving.routes import page as route
from tests.serving.browser import CHROMIUM, MISSING, Page, browser
from tests.serving.harness import Server, running

pytestmark = [pytest.mark.model, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]
FRANCE = "What is the capital of France?"
ANSWERED = "messages.length && !stopper"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests."""
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(window: Page, server: Server) -> Page:
    """The page as a person finds it, with the model ready."""
    return opened(window, server)


def opened(window: Page, server: Server) -> Page:
    """Load the page of a server."""
    window.look(1280, 800, dark=False)
    window.open(f"{server.url}/")
    for seen in (window.requested, window.sent, window.complaints):
        seen.clear()
    window.wait("at('state').textContent !== 'connecting'")
    return window


def ask(page: Page, text: str = FRANCE) -> str:
    """Ask a question, wait for the end of the answer, and return it."""
    page.click("#text")
    page.type(text)
    page.press("Enter")
    page.wait(ANSWERED)
    return page.text("article.assistant .words")


def make_answers_long(page: Page) -> None:
    """Let the page's requests have a field that it has no control for: the shipped model's own answers are a word."""
    page.js("window.ask = window.fetch")
    page.js(
        "window.fetch = (url, options) => ask(url, options.body ? {...options, body: JSON.stringify("
        "{...JSON.parse(options.body), ignore_eos: true})} : options)"
    )


def set_parameters(page: Page, **values: object) -> None:
    """Type values into the fields of the settings."""
    page.click("#settings")
    for name, value in values.items():
        page.js(f"at('{name}').focus(), at('{name}').select()")
        page.type(str(value))
    page.click("#close")


def test_it_shows_the_model_and_asks_nobody_but_its_server(window, server):
    window.requested.clear()
    window.open(f"{server.url}/")
    window.wait("at('state').textContent === 'ready'")
    assert window.text("#model") == "tiny-phi3"
    assert ask(window) == "Paris"
    assert all(url.startswith((server.url, "data:")) for url in window.requested), window.requested
    assert window.complaints == []


def test_it_streams_and_tells_the_speed(page):
    page.js("window.shown = new Set()")
    watcher = "new MutationObserver(() => shown.add(at('log').innerText))"
    page.js(f"{watcher}.observe(at('log'), {{childList: true, subtree: true}})")
    make_answers_long(page)
    set_parameters(page, max_tokens=400)
    ask(page)
    assert page.js("shown.size") > 4, "the text came in one piece"
    facts = page.text(".facts")
    assert re.search(r"\d+ tokens · [\d.]+ tokens/s · first token after [\d.]+ s$", facts), facts
    assert "stopped at the token limit" in facts


def test_a_conversation_goes_on_and_a_new_one_forgets_it(page):
    ask(page)
    ask(page, "What is the capital of Spain?")
    roles = [[message["role"] for message in body["messages"]] for body in page.sent]
    assert roles == [["user"], ["user", "assistant", "user"]]
    page.click("#new")
    assert page.js("document.querySelectorAll('article').length") == 0
    assert page.focused() == "text"
    ask(page)
    assert len(page.sent[-1]["messages"]) == 1


def test_shift_and_enter_begin_a_line(page):
    page.click("#text")
    page.type("a")
    page.press("Enter", shift=True)
    page.type("b")
    assert page.js("at('text').value") == "a\nb"
    assert page.sent == []


@pytest.mark.parametrize("by", ["Escape", "Stop"])
def test_stopping_keeps_the_text_and_frees_the_row(page, server, by):
    make_answers_long(page)
    set_parameters(page, max_tokens=1900)
    page.click("#text")
    page.type(FRANCE)
    page.press("Enter")
    page.wait("messages.at(-1)?.content.length > 20")
    if by == "Escape":
        page.press("Escape")
    else:
        page.click("#stop")
    page.wait(ANSWERED)
    server.wait_until_idle()
    assert page.text(".facts").startswith("stopped")
    assert len(page.text("article.assistant .words")) > 10
    assert page.js("at('stop').hidden && !at('send').hidden")
    assert page.focused() == "text"


def test_a_message_is_edited_and_sent_again(page):
    ask(page)
    ask(page, "What is the capital of Spain?")
    page.js("document.querySelector('article.user .foot button').focus()")
    page.press("Enter")
    assert page.focused() == "edit"
    assert page.js("at('edit').value") == FRANCE
    page.press("Escape")
    assert page.js("document.getElementById('edit')") is None
    assert page.js("messages.length") == 4

    page.js("document.querySelector('article.user .foot button').click(); at('edit').select()")
    page.type("What is the capital of Italy?")
    page.press("Enter")
    page.wait(ANSWERED)
    assert page.js("messages.length") == 2
    assert page.text("article.assistant .words") == "Rome"
    assert page.sent[-1]["messages"] == [{"role": "user", "content": "What is the capital of Italy?"}]


def test_an_answer_is_made_again(page):
    ask(page)
    page.click("button", "Try again")
    page.wait(ANSWERED)
    assert page.sent[0]["messages"] == page.sent[1]["messages"]
    assert page.js("messages.length") == 2


def test_the_settings_are_sent_and_reset(page):
    set_parameters(page, system="Be brief.", temperature=0.5, top_p=0.9, min_p=0.1, repetition_penalty=1.1, seed=3,
                   max_tokens=5, stops="END\n###")  # fmt: skip
    ask(page)
    body = page.sent[-1]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    expected = {"temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1, "seed": 3, "max_tokens": 5}
    assert {name: body[name] for name in expected} == expected
    assert body["stop"] == ["END", "###"]
    page.click("#settings")
    page.click("#defaults")
    page.press("Escape")
    assert page.js("at('panel').hidden")
    assert page.focused() == "settings"
    ask(page)
    assert {*page.sent[-1]} == {"model", "messages", "stream", "stream_options"}


def test_a_setting_that_is_not_valid_is_shown_and_not_sent(page):
    set_parameters(page, temperature=3)
    page.click("#text")
    page.type(FRANCE)
    page.press("Enter")
    page.wait("!at('panel').hidden && document.activeElement === at('temperature')")
    assert page.js("at('text').value") == FRANCE
    assert page.sent == []


def test_a_refusal_is_said_plainly_and_the_question_stays(page):
    set_parameters(page, max_tokens=999999)
    ask(page)
    assert page.text("[role=alert].error") == "max_tokens: this server takes 32768 at most"
    assert page.text("article.user .words") == FRANCE
    set_parameters(page, max_tokens=9)
    page.click("button", "Try again")
    page.wait(ANSWERED)
    assert page.text("article.assistant .words") == "Paris"
    assert page.js("document.querySelector('.error')") is None


def test_copies_run_as_they_are(page, server):
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite"], origin=server.url)
    page.call("Emulation.setFocusEmulationEnabled", enabled=True)
    page.click("#curl")
    assert page.text("#toast") == "Write a message first"
    set_parameters(page, min_p=0.1, system='It\'s "quoted" $HOME `x`')
    page.click("#text")
    page.type(FRANCE)
    page.click("#curl")
    page.wait("at('toast').textContent === 'Copied'")
    command = page.js("navigator.clipboard.readText()")
    page.click("#python")
    script = page.wait("navigator.clipboard.readText().then(text => text.includes('import openai') && text)")
    env = os.environ | {"NO_PROXY": "127.0.0.1"}
    for arguments in (["bash", "-c", command], [sys.executable, "-c", script]):
        done = subprocess.run(arguments, capture_output=True, text=True, env=env, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Paris" in done.stdout
    assert '"extra_body"' not in script
    assert 'extra_body={"min_p":0.1}' in script


def test_a_server_with_keys_gets_one(window, custom, monkeypatch):
    monkeypatch.setenv("PHI_MLFLOW_API_KEY", "a-long-secret")
    with running(custom) as server:
        page = opened(window, server)
        page.wait("!at('gate').hidden && document.activeElement === at('key')")
        page.type("a-wrong-secret")
        page.press("Enter")
        page.wait("at('hint').textContent === 'The server did not accept this key.'")
        page.js("at('key').select()")
        page.type("a-long-secret")
        page.press("Enter")
        page.wait("at('gate').hidden && at('state').textContent === 'ready'")
        assert ask(page) == "Paris"
        copied = page.js("asCurl(forCopy()) + asPython(forCopy())")
        assert "a-long-secret" not in copied
        assert "$KEY" in copied


def test_it_waits_while_the_model_loads(window, custom):
    with running(None) as server:
        page = opened(window, server)
        page.wait("at('state').textContent === 'loading the model'")
        server.context.live.current = custom
        page.wait("at('state').textContent === 'ready'")


def test_a_server_that_is_gone_is_said_plainly(window, custom):
    with running(custom) as server:
        page = opened(window, server)
        page.wait("model")
    assert ask(page) == ""
    assert page.text(".error") == "The server does not answer. Is it still running?"


def test_code_is_shown_as_code_and_markup_as_text(page):
    text = "Use `x`:\n```js\n<b>1</b>\n```\n<img src=x onerror=alert(1)>"
    page.js(f"messages = [{{role: 'assistant', content: {json.dumps(text)}}}]; draw()")
    assert page.text("article pre code") == "<b>1</b>"
    assert page.text("article .words > code") == "x"
    assert page.js("document.querySelector('article img, article b')") is None


def test_it_follows_the_colours_of_the_system_and_the_choice_of_the_person(page):
    def back() -> str:
        return str(page.js("getComputedStyle(document.body).backgroundColor"))

    light = back()
    page.look(1280, 800, dark=True)
    dark = back()
    assert light != dark
    page.js("at('theme').value = 'light'; at('theme').onchange()")
    assert back() == light


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_nothing_is_wider_than_the_window(page, width):
    page.look(width, 800, dark=False)
    ask(page)
    page.js(
        "messages[1].content = 'wide '.repeat(50) + 'x'.repeat(500) + '\\n```\\n' + 'y'.repeat(500) + '\\n```'; draw()"
    )
    for open_panel in (False, True):
        page.js(f"panel({str(open_panel).lower()})")
        parts = "[...document.body.children].filter(part => !part.hidden)"
        assert page.js(f"Math.max(...{parts}.map(part => part.getBoundingClientRect().right))") <= width
        assert page.js("at('log').scrollWidth <= at('log').clientWidth")


def test_the_keyboard_reaches_everything_in_order(page):
    page.js("document.activeElement.blur(), at('new').focus()")
    order = [page.focused()]
    for _ in range(8):
        page.press("Tab")
        order.append(page.focused() or page.js("document.activeElement.textContent"))
    assert order[:3] == ["new", "settings", "log"]
    assert order[-4:] == ["text", "send", "curl", "python"] or order[-3:] == ["text", "send", "curl"], order


def test_every_control_has_a_name_for_a_screen_reader(page):
    ask(page)
    page.js("panel(true); document.querySelector('article.user .foot button').click()")
    roles = ("button", "textbox", "spinbutton", "combobox")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    controls = [node for node in nodes if node["role"]["value"] in roles]
    assert len(controls) > 12
    assert [node for node in controls if not node["name"]["value"]] == []


def test_a_screen_reader_hears_of_an_answer_twice(page):
    page.js("window.heard = []")
    page.js("new MutationObserver(() => heard.push(at('status').textContent)).observe(at('status'), {childList: true})")
    ask(page)
    assert page.js("heard") == ["The model is writing.", "Answer: Paris"]


def test_the_page_may_neither_be_framed_nor_load_from_elsewhere(server):
    policy = server.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    text = (Path(route.__file__).parents[1] / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=[\"'](?!data:)", text) == []
