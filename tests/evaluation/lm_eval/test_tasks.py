"""Tasks of lm-evaluation-harness on both wrappers, and its command."""

import importlib.metadata
import json
import os
import subprocess
import sys

import mlflow
import pytest

from steps.evaluation.lm_eval.__main__ import main
from steps.evaluation.lm_eval.tasks import INSTALL, TaskOptions, run_tasks
from tests.checkout import ROOT
from tests.evaluation.lm_eval.conftest import write_tasks

pytestmark = pytest.mark.model


@pytest.mark.parametrize("wrapper", ["custom", "transformers"])
@pytest.mark.parametrize("wrong", [0, 3])
def test_a_model_scores_what_it_knows(lm_eval, folders, tmp_path, wrapper, wrong):
    options = TaskOptions(include_path=str(write_tasks(tmp_path, wrong)), apply_chat_template=True)
    output = run_tasks(str(folders[wrapper]), ["*_wrong"], options)
    results = output["results"]
    assert results[f"choose_{wrong}_wrong"]["acc,none"] == pytest.approx(1 - wrong / 12)
    assert results[f"say_{wrong}_wrong"]["exact_match,none"] == pytest.approx(1 - wrong / 12)
    assert {task: counts["effective"] for task, counts in output["n-samples"].items()} == {
        f"choose_{wrong}_wrong": 12,
        f"say_{wrong}_wrong": 12,
    }


def test_the_command_prints_lm_evals_table_and_writes_its_results(lm_eval, folders, tmp_path):
    """The model is an alias, which the results name by its version; prompts are not conversations."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(store, store)
    client.create_registered_model("tiny")
    client.create_model_version("tiny", folders["custom"].as_uri())
    client.set_registered_model_alias("tiny", "champion", "1")
    command = ["-m", "steps.evaluation.lm_eval", "--model", "models:/tiny@champion", "--tasks", "say_3_wrong"]
    more = ["--include_path", str(write_tasks(tmp_path, 3)), "--limit", "4", "--output", str(tmp_path / "out.json")]
    process = subprocess.run(
        [sys.executable, *command, *more],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_TRACKING_URI": store, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    (line,) = [line for line in process.stdout.splitlines() if "say_3_wrong" in line]
    assert [cell.strip() for cell in line.split("|")][5:9] == ["exact_match", "↑", "0.25", "±"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["results"]["say_3_wrong"]["exact_match,none"] == 0.25
    assert written["config"]["model_args"] == {"model_uri": "models:/tiny/1"}


def refusal(monkeypatch, *arguments: str) -> str:
    """Return the line that the command ends with."""
    for name in ("TQDM_DISABLE", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SystemExit) as ended:
        main([part for argument in arguments for part in argument.split("=")])
    assert isinstance(ended.value.code, str) and "\n" not in ended.value.code  # which Python prints, and exits with 1
    return ended.value.code


def test_bad_input_is_one_line(lm_eval, folders, tmp_path, monkeypatch):
    write_tasks(tmp_path, 0)
    model, include = f"--model={folders['custom']}", f"--include_path={tmp_path}"
    line = refusal(monkeypatch, model, include, "--tasks=say_0_wrong,choose_0_rong")
    assert (
        line == "lm_eval: tasks has 'choose_0_rong', which is not a task, group or tag: did you mean 'choose_0_wrong'?"
    )
    line = refusal(monkeypatch, "--model=no/such/folder", include, "--tasks=say_0_wrong")
    assert line.startswith("lm_eval: model is 'no/such/folder': ")
    line = refusal(monkeypatch, f"--model={tmp_path}", include, "--tasks=say_0_wrong")
    assert line.startswith(f"lm_eval: model is '{tmp_path}': ")
    line = refusal(monkeypatch, model, "--include_path=no/such/folder", "--tasks=say_0_wrong")
    assert line == "lm_eval: include_path is 'no/such/folder': no such folder"
    line = refusal(monkeypatch, model, include, "--tasks=say_0_wrong", "--limit=0")
    assert line == "lm_eval: limit is 0; expected a number of documents, or a share of them below 1"
    line = refusal(monkeypatch, model, include, "--tasks=say_0_wrong", "--output=no/such/out.json")
    assert line == "lm_eval: output is 'no/such/out.json': no such folder"


def test_a_registered_model_that_does_not_exist_is_one_line(lm_eval, tmp_path, monkeypatch):
    write_tasks(tmp_path, 0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for uri in ("models:/nobody@champion", "models:/nobody/1"):
        line = refusal(monkeypatch, f"--model={uri}", f"--include_path={tmp_path}", "--tasks=say_0_wrong")
        assert line.startswith(f"lm_eval: model is '{uri}': ") and "nobody" in line.partition(": ")[2][len(uri) :]


def test_without_lm_eval_the_line_says_how_to_install_it():
    """Whether it is installed here or not."""
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from steps.evaluation.lm_eval.__main__ import main\n"
        "main(['--model', 'models:/tiny-phi3@champion', '--tasks', 'mytask'])"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    expected = "lm_eval: lm_eval is not installed, and lm-evaluation-harness needs it: pip install "
    assert process.stderr == expected + 'lm-eval==0.4.13 "datasets<5.1"\n'
    assert process.stdout == ""


def test_the_version_that_the_line_names_is_the_tested_version(lm_eval):
    assert f"lm-eval=={importlib.metadata.version('lm-eval')} " in INSTALL
