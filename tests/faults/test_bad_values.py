"""A wrong value or an unknown parameter is refused in one line, before any work."""

import importlib

import pytest

from steps.common.errors import StepError
from steps.project.mlproject import parse_parameters
from tests.checkout import assert_refused

NO_RUN = "0" * 32  # well formed, and in no store
EVALUATE = {"models": "models:/x/1", "reference_run": NO_RUN}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("entry_point", "params", "parts"),
    [
        ("main", {"profile": "tinny"}, ["main: profile is 'tinny'; did you mean 'tiny'"]),
        ("fetch_model", {"source": "no-such-folder"}, ["source is 'no-such-folder'; expected a hub repository"]),
        ("fetch_model", {"source": "runs:/" + NO_RUN + "/x"}, ["cannot be read"]),
        (
            "fetch_model",
            {"source": "params/tiny-phi3", "adapter": "no-such-folder"},
            ["adapter is 'no-such-folder'; expected"],
        ),
        ("convert_onnx", {"checkpoint_run": NO_RUN}, ["no such run in this tracking store"]),
        ("wrap_custom", {"onnx_run": NO_RUN, "registered_model": "me/phi"}, ["registered_model is 'me/phi'"]),
        ("evaluate", EVALUATE | {"evalset": "no.jsonl"}, ["evalset", "no.jsonl cannot be read"]),
    ],
)
def test_a_bad_value_is_one_line_on_the_command_line(local, entry_point, params, parts):
    assert_refused(local, local.run_module(entry_point, **params), *parts)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("entry_point", "params", "parts"),
    [
        ("main", {"steps": "fetch"}, ["steps is 'fetch'; did you mean 'fetch_model'"]),
        ("main", {"reuse": "maybe"}, ["reuse is 'maybe'"]),
        ("convert_onnx", {"checkpoint_run": "latest"}, ["checkpoint_run is 'latest'; expected the run ID"]),
        ("convert_onnx", {"checkpoint_run": NO_RUN, "precision": "fp16"}, ["precision is 'fp16'", "int4, int8, fp32"]),
        ("convert_onnx", {"checkpoint_run": NO_RUN, "options": "blok_size=32"}, ["did you mean 'block_size'"]),
        ("convert_onnx", {"checkpoint_run": NO_RUN, "max_kl": "lots"}, ["max_kl is 'lots'; expected a number of nats"]),
        ("wrap_transformer", {"checkpoint_run": NO_RUN, "task": "llm/v1/chats"}, ["did you mean 'llm/v1/chat'"]),
        ("evaluate", EVALUATE | {"text": "no.txt"}, ["text", "no.txt cannot be read"]),
        ("evaluate", EVALUATE | {"gates": "no.yaml"}, ["gates", "no.yaml cannot be read"]),
        ("evaluate", EVALUATE | {"models": "models:/x/1,"}, ["models is 'models:/x/1,'; expected MLflow model URIs"]),
        ("evaluate", EVALUATE | {"effort": "quik"}, ["effort is 'quik'; did you mean 'quick'"]),
        ("evaluate", EVALUATE | {"prefer": "cost"}, ["prefer is 'cost'", "quality, size, speed"]),
        (
            "evaluate",
            EVALUATE | {"judge": "gpt-5"},
            ["judge is 'gpt-5'; expected nothing, or a model for MLflow's judges"],
        ),
        ("submit_databricks", {"entry_point": "mian"}, ["entry_point is 'mian'; did you mean 'main'"]),
        ("submit_databricks", {"entry_point": "test"}, ["entry_point is 'test'; valid: convert_onnx"]),
        ("submit_databricks", {"params": "profile"}, ["params has 'profile'; expected name=value"]),
        ("submit_databricks", {"params": "profle=tiny"}, ["'profle' is unknown to main; did you mean 'profile'"]),
        ("submit_databricks", {"params": "profile=tinny"}, ["profile is 'tinny'; did you mean 'tiny'"]),
        ("submit_databricks", {"entry_point": "evaluate"}, ["evaluate needs a value for models, reference_run"]),
        ("submit_databricks", {"env_manager": "pip"}, ["env_manager is 'pip'; valid: conda, local, uv, virtualenv"]),
        ("submit_databricks", {"timeout": "-1"}, ["timeout is '-1'; expected seconds"]),
        ("submit_databricks", {"source": "github.com/x/y"}, ["expected workspace, or the URL of a git repository"]),
        ("submit_databricks", {"version": "v1"}, ["version is 'v1', but source is workspace"]),
        ("submit_databricks", {"uc_schema": "main"}, ["uc_schema is 'main'; expected catalog.schema"]),
        ("submit_databricks", {"cluster": "no.json"}, ["cluster is 'no.json', which cannot be read"]),
    ],
)
def test_an_entry_point_refuses_a_bad_value(entry_point, params, parts):
    values = parse_parameters(entry_point, [f"--{name}={value}" for name, value in params.items()])
    with pytest.raises(StepError) as refusal:
        importlib.import_module(f"steps.{entry_point}").check(values)
    for part in parts:
        assert part in str(refusal.value)


@pytest.mark.e2e
def test_an_unknown_parameter_is_refused(local):
    """MLflow passes it on without a warning."""
    result = local.run("main", proflie="tiny")
    assert_refused(local, result, "main: parameter 'proflie' is unknown to main; did you mean 'profile'")


@pytest.mark.e2e
def test_the_name_of_a_prompt_is_refused_as_a_registered_model_before_any_work(local):
    """MLflow keeps prompts and models under the same names."""
    local.client.register_prompt("taken", "Answer {{question}}")
    profile = (local.root / "params/tiny.yaml").read_text()
    (local.root / "params/taken.yaml").write_text(profile.replace("&name tiny-phi3", "&name taken"))
    assert_refused(local, local.run_module("main", profile="taken"), "registered_model is 'taken'", "prompt")
    main = local.latest("main")
    assert local.runs(f"tags.`mlflow.parentRunId` = '{main.info.run_id}'") == []
