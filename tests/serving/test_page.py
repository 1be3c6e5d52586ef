"""The chat page in headless Chromium: it asks, shows the answer as it comes, and asks nobody but its server."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from steps.serving.routes import page
from tests.serving.harness import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE = Path(page.__file__).parents[1] / "page.html"


@pytest.mark.unit
def test_the_page_is_one_file_that_asks_no_other_machine():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"https?://", text) == []
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []


@pytest.mark.unit
def test_every_control_has_a_name():
    text = PAGE.read_text(encoding="utf-8")
    for control in re.findall(r"<(?:input|textarea)[^>]*id=\"(\w+)\"", text):
        labelled = f'for="{control}"' in text or re.search(
            rf"<label[^>]*>[^<]*<(?:input|textarea) id=\"{control}\"", text
        )
        assert labelled, control


@pytest.mark.model
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_the_page_finds_the_model(server: Server, tmp_path):
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", f"{server.url}/"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert re.search(r"<h1[^>]*>tiny-phi3</h1>", done.stdout)
