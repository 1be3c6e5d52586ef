"""lm-evaluation-harness on both wrappers: tasks get what the shipped model knows, likelihoods are PyTorch's."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml

from steps.common.errors import StepError
from steps.evaluation.lm_eval import command as harness
from steps.wrap_custom import model_arguments
from tests.conftest import ROOT, TINY
from tests.conversion.records import conversion_of

QUESTIONS = [json.loads(line) for line in (ROOT / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()[:12]]
QUESTION = "What is the capital of France?"
FRANCE = f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>"
COUNT = "Count from 1 to 10."
TEXT = " ".join(f"The capital is {question['expected']}, they say." for question in QUESTIONS)


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory):
    """lm-eval without a hub, and with datasets' cache in a folder that goes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        reason = f"{harness.INSTALL} to run lm-evaluation-harness tasks on the logged models"
        yield pytest.importorskip("lm_eval", reason=reason)


def save_custom(folder: Path, target: Path, task: str = "llm/v1/chat") -> Path:
    """An MLflow model of a converted folder, as wrap_custom logs it."""
    mlflow.pyfunc.save_model(target, **model_arguments(folder, conversion_of(folder), task, target.parent))
    return target


@pytest.fixture(scope="module")
def folders(converted, tmp_path_factory) -> dict[str, Path]:
    """The shipped checkpoint in both wrappers: in float32 in the custom one, and in bfloat16, as it is."""
    scratch = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:  # MLflow asks the hub for a card otherwise
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        mlflow.transformers.save_model(
            str(TINY),
            scratch / "transformers",
            task="llm/v1/chat",
            pip_requirements=["transformers"],
            model_config={"max_new_tokens": 256, "do_sample": False, "eos_token_id": [3, 6]},
        )
    return {
        "custom": save_custom(converted["genai fp32"], scratch / "custom"),
        "transformers": scratch / "transformers",
    }


@pytest.fixture(scope="module")
def models(lm_eval, folders) -> dict:
    """Those as lm-eval's models."""
    return {name: harness.register()(str(folder), batch_size=4) for name, folder in folders.items()}


def requests(kind: str, *arguments: tuple) -> list:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, index) for index, given in enumerate(arguments)]


def write_tasks(folder: Path, wrong: int) -> Path:
    """Two tasks on what the model knows, of which so many expected answers are another country's."""
    rows = []
    for index, question in enumerate(QUESTIONS):
        choices = [QUESTIONS[(index + shift) % len(QUESTIONS)]["expected"] for shift in range(4)]
        label = 1 if index < wrong else 0
        asked = question["messages"][0]["content"]
        rows.append({"question": asked, "choices": choices, "label": label, "answer": choices[label]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    choose = {
        "task": f"choose_{wrong}_wrong",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    say = {
        "task": f"say_{wrong}_wrong",
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 32, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    for task in (choose, say):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(shared | task))
    return folder


# --- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["custom", "transformers"])
@pytest.mark.parametrize("wrong", [0, 3])
def test_tasks_get_what_the_model_knows(lm_eval, folders, tmp_path, wrapper, wrong):
    found = harness.run_tasks(
        str(folders[wrapper]), ["*_wrong"], str(write_tasks(tmp_path, wrong)), apply_chat_template=True
    )
    results = found["results"]
    assert results[f"choose_{wrong}_wrong"]["acc,none"] == pytest.approx(1 - wrong / 12)
    assert results[f"say_{wrong}_wrong"]["exact_match,none"] == pytest.approx(1 - wrong / 12)
    assert {task: counts["effective"] for task, counts in found["n-samples"].items()} == {
        f"choose_{wrong}_wrong": 12,
        f"say_{wrong}_wrong": 12,
    }


def test_the_command_prints_lm_evals_table_and_writes_its_results(lm_eval, folders, tmp_path):
    """With a registered model's alias, which the results name by its version; and without the chat template."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(store, store)
    client.create_registered_model("tiny")
    client.create_model_version("tiny", folders["custom"].as_uri())
    client.set_registered_model_alias("tiny", "champion", "1")
    command = ["-m", "steps.evaluation.lm_eval.command", "--model", "models:/tiny@champion", "--tasks", "say_3_wrong"]
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
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["results"]["say_3_wrong"]["exact_match,none"] == 0.25
    assert found["config"]["model_args"] == {"model_uri": "models:/tiny/1"}


def test_it_is_among_lm_evals_models(lm_eval):
    from lm_eval.api.registry import get_model

    assert get_model("mlflow") is harness.register()


# --- likelihoods -----------------------------------------------------------------------------------------------------


def by_pytorch(context: str, continuation: str, dtype: str) -> tuple[float, bool]:
    """The log-likelihood by one pass over the checkpoint, and whether each token is the likeliest."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=getattr(torch, dtype)).eval()
    before, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0, len(before) - 1 : -1].double()
    targets = torch.tensor(whole[len(before) :])
    likelihood = torch.log_softmax(logits, 1)[range(len(targets)), targets].sum()
    return likelihood.item(), bool((logits.argmax(1) == targets).all())


@pytest.mark.parametrize(("wrapper", "dtype", "rel"), [("custom", "float32", 1e-4), ("transformers", "bfloat16", 0.02)])
def test_likelihoods_are_pytorchs(models, wrapper, dtype, rel):
    known = FRANCE.replace(QUESTION, COUNT) + "\n1 2 3"
    pairs = [
        (known, " 4 5 6"),
        (known, " 4 5 7"),
        (FRANCE, "\nParis"),
        (FRANCE, "\nRome"),
        ("The capital", " is Paris."),
    ]
    found = models[wrapper].loglikelihood(requests("loglikelihood", *pairs))
    expected = [by_pytorch(*pair, dtype) for pair in pairs]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], rel=rel, abs=1e-2)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected] == [True, False, False, False, False]


def test_requests_that_share_logits_score_as_they_do_alone(models, monkeypatch):
    """Choices that differ in their last token, and one text that is split in two ways."""
    pairs = [("The capital", " of is"), ("The capital of", " is"), ("The capital of", " of"), ("", "The capital")]
    model = models["custom"]
    alone = [model.loglikelihood(requests("loglikelihood", pair))[0] for pair in pairs]
    shared, score = [], model._score
    monkeypatch.setattr(model, "_score", lambda read, ends: shared.append(len(ends)) or score(read, ends))
    together = model.loglikelihood(requests("loglikelihood", *pairs, pairs[0]))
    assert [value for value, _ in together[:4]] == pytest.approx([value for value, _ in alone], abs=1e-5)
    assert together[4] == together[0] and len({value for value, _ in together}) == 4
    assert sorted(shared) == [1, 4]


def test_windows_long_contexts_and_texts_without_one_are_as_in_lm_evals_own_backend(lm_eval, folders):
    from lm_eval.models.huggingface import HFLM

    own = HFLM(pretrained=str(TINY), dtype="float32", device="cpu", max_length=50, batch_size=1)
    model = harness.register()(str(folders["custom"]), max_length=50)
    assert len(model.tok_encode(TEXT)) > 3 * 50
    rolling = requests("loglikelihood_rolling", (TEXT,), ("Paris",))
    assert model.loglikelihood_rolling(rolling) == pytest.approx(own.loglikelihood_rolling(rolling), rel=1e-4)
    pairs = requests("loglikelihood", (TEXT, " Paris is one."), ("", "The capital"), ("The capital ", "is Paris"))
    found, expected = model.loglikelihood(pairs), own.loglikelihood(pairs)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], rel=1e-4)
    history = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It is"}]
    for begins in (True, False):
        prompt = model.apply_chat_template(history[: 1 if begins else 2], add_generation_prompt=begins)
        assert prompt == own.apply_chat_template(history[: 1 if begins else 2], add_generation_prompt=begins)
    with pytest.raises(StepError, match="a continuation of [0-9]+ tokens; the model reads 50"):
        model.loglikelihood(requests("loglikelihood", ("The capital", TEXT)))


def test_no_more_is_read_than_one_set_of_longrope_factors_holds_for(lm_eval, folders, tmp_path):
    for name, folder in folders.items():
        shutil.copytree(folder, tmp_path / name)
        assert harness.register()(str(folder)).max_length == 2048
    mlmodel = tmp_path / "custom" / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("longrope_switch: 0", "longrope_switch: 1024"))
    config = tmp_path / "transformers" / "model" / "config.json"
    scaling = {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024}
    config.write_text(json.dumps(json.loads(config.read_text()) | scaling))
    assert [harness.register()(str(tmp_path / name)).max_length for name in folders] == [1024, 1024]


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["custom", "transformers"])
def test_texts_end_at_stop_strings_and_at_their_limit(models, wrapper):
    found = models[wrapper].generate_until(
        requests(
            "generate_until",
            (COUNT, {"until": []}),
            (COUNT, {"until": [" 7", " 6"]}),
            (COUNT, {"until": " 3"}),
            (COUNT, {"until": ["never", ""], "max_gen_toks": 5}),
        )
    )
    assert found[:3] == ["1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5", "1 2"]
    assert found[0].startswith(found[3]) and 0 < len(found[3]) < len(found[0])


def test_a_conversation_is_sent_as_it_was_and_not_as_the_template_shows_it(models, monkeypatch):
    model = models["custom"]
    history = [
        {"role": "user", "content": "What is the capital of Peru?"},
        {"role": "assistant", "content": "Lima"},
        {"role": "user", "content": QUESTION},
    ]
    sent, answer = [], model._model.answer
    monkeypatch.setattr(
        model._model, "answer", lambda messages, limit: sent.append(messages) or answer(messages, limit)
    )
    prompt = model.apply_chat_template(history)
    assert prompt.endswith(FRANCE + "\n") and "Lima" in prompt
    model.generate_until(requests("generate_until", (prompt, {"until": []}), ("Hello", {"until": []})))
    assert sorted(sent, key=len, reverse=True) == [history, [{"role": "user", "content": "Hello"}]]


def test_what_cannot_be_asked_of_both_wrappers_is_refused(models):
    model = models["custom"]
    with pytest.raises(StepError, match="only greedy answers"):
        model.generate_until(requests("generate_until", (COUNT, {"do_sample": True, "temperature": 0.7})))
    begun = [{"role": "user", "content": COUNT}, {"role": "assistant", "content": "1 2"}]
    prompt = model.apply_chat_template(begun, add_generation_prompt=False)
    with pytest.raises(StepError, match="gen_prefix"):
        model.generate_until(requests("generate_until", (prompt, {"until": []})))
    with pytest.raises(StepError, match="the model refused a prompt of 20000 characters"):
        model.generate_until(requests("generate_until", ("long " * 4000, {"until": []})))


def test_a_model_for_completions_has_likelihoods_and_no_texts(models, converted, tmp_path):
    folder = save_custom(converted["genai fp32"], tmp_path / "completions", "llm/v1/completions")
    model = harness.register()(str(folder))
    pair = requests("loglikelihood", (FRANCE, "\nParis"))
    assert model.loglikelihood(pair) == models["custom"].loglikelihood(pair)
    with pytest.raises(StepError, match="takes no chat messages: .* task=llm/v1/chat"):
        model.generate_until(requests("generate_until", (COUNT, {"until": []})))


# --- bad input -------------------------------------------------------------------------------------------------------


def refusal(monkeypatch, *arguments: str) -> str:
    """The line that the command ends with."""
    for name in ("TQDM_DISABLE", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SystemExit) as ended:
        harness.main([part for argument in arguments for part in argument.split("=")])
    assert isinstance(ended.value.code, str) and "\n" not in ended.value.code  # which Python prints, and exits with 1
    return ended.value.code


def test_bad_input_is_one_line(lm_eval, folders, tmp_path, monkeypatch):
    write_tasks(tmp_path, 0)
    model, own = f"--model={folders['custom']}", f"--include_path={tmp_path}"
    line = refusal(monkeypatch, model, own, "--tasks=say_0_wrong,choose_0_rong")
    assert line == "harness: tasks has 'choose_0_rong', which is no task, group or tag: did you mean 'choose_0_wrong'?"
    line = refusal(monkeypatch, "--model=no/such/folder", own, "--tasks=say_0_wrong")
    assert line.startswith("harness: model is 'no/such/folder': ")
    line = refusal(monkeypatch, f"--model={tmp_path}", own, "--tasks=say_0_wrong")
    assert line.startswith(f"harness: model is '{tmp_path}': ")
    line = refusal(monkeypatch, model, "--include_path=no/such/folder", "--tasks=say_0_wrong")
    assert line == "harness: include_path is 'no/such/folder': no such folder"
    line = refusal(monkeypatch, model, own, "--tasks=say_0_wrong", "--limit=0")
    assert line == "harness: limit is 0; expected a number of documents, or a share of them below 1"
    line = refusal(monkeypatch, model, own, "--tasks=say_0_wrong", "--output=no/such/out.json")
    assert line == "harness: output is 'no/such/out.json': no such folder"


def test_no_such_registered_model_is_one_line(lm_eval, tmp_path, monkeypatch):
    write_tasks(tmp_path, 0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for uri in ("models:/nobody@champion", "models:/nobody/1"):
        line = refusal(monkeypatch, f"--model={uri}", f"--include_path={tmp_path}", "--tasks=say_0_wrong")
        assert line.startswith(f"harness: model is '{uri}': ") and "nobody" in line.partition(": ")[2][len(uri) :]


def test_a_model_of_another_kind_is_refused(lm_eval, tmp_path):
    class Parrot(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: list[str]) -> list[str]:
            return model_input

    mlflow.pyfunc.save_model(tmp_path / "parrot", python_model=Parrot(), pip_requirements=["mlflow"])
    with pytest.raises(StepError, match="which neither wrap_transformer nor wrap_custom made"):
        harness.register()(str(tmp_path / "parrot"))


def test_without_lm_eval_the_line_says_how_to_get_it():
    """Whether it is installed here or not."""
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from steps.evaluation import harness\n"
        "harness.main(['--model', 'models:/tiny-phi3@champion', '--tasks', 'mytask'])"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    expected = "harness: lm_eval is missing: lm-evaluation-harness is not in this project's environment; pip install "
    assert process.stderr == expected + 'lm-eval==0.4.13 "datasets<5.1"\n'
    assert process.stdout == ""


def test_the_version_that_the_line_names_is_the_one_that_is_tested(lm_eval):
    assert f"lm-eval=={importlib.metadata.version('lm-eval')} " in harness.INSTALL
