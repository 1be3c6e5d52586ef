"""The check of a checkpoint's chat template in a process of its own."""

import subprocess
import sys

import pytest

from steps.checkpoint.template_check import check_chat_template
from steps.common.errors import StepError
from tests.checkout import ROOT, TINY

pytestmark = pytest.mark.model


def test_the_shipped_template_and_a_folder_without_one_pass(tmp_path):
    check_chat_template(TINY)
    check_chat_template(tmp_path)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("{% if %}", "cannot be read: Expected an expression"),
        ("{{ raise_exception('not for you') }}", "rejected them: not for you"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "does not end"),
        ("{{ 'x' * 10 ** 10 }}", "exceeds a limit"),
        (
            "{% set n = namespace(x=['a']) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
            "exceeds a limit",
        ),
    ],
)
def test_a_bad_template_is_one_line_with_the_cause(tmp_path, source, cause):
    (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(StepError, match=cause) as refused:
        check_chat_template(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_process_that_does_not_end_is_killed(tmp_path):
    (tmp_path / "chat_template.jinja").write_text(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(StepError, match="does not end within 3 s"):
        check_chat_template(tmp_path, seconds=3)


def test_a_damaged_file_is_named_as_damaged(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(StepError, match="its file is damaged"):
        check_chat_template(tmp_path)


def test_the_process_does_without_the_import_of_mlflow():
    modules = "steps.checkpoint.template_check, steps.chat.runtime.chat_template"
    code = f"import sys, {modules}; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
