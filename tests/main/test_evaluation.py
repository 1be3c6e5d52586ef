"""What the first main says of its two models: the figures, a trace of each answer, the champion, the report."""

import re

import mlflow
import pytest

from steps.evaluation.metrics import METRICS

pytestmark = pytest.mark.e2e


def test_the_models_are_right_and_measured(evaluation):
    assert [model.label for model in evaluation.models] == ["transformers-bfloat16", "onnx-genai-int4"]
    assert evaluation.interleaved
    assert evaluation.effort.name == "quick"
    for model in evaluation.models:
        assert model.value("accuracy") == 1.0
        assert model.value("agreement") == 1.0
        assert {name for name in METRICS if model.value(name) is None} == {"judged"}
        assert 0 < model.value("kl_mean") < 0.1
        assert model.value("same_top") > 0.95
        assert model.failed_gates == ()


def test_every_answer_is_timed_to_its_full_length(evaluation):
    for model in evaluation.models:
        assert model.ignores_eos
        assert {sample.new_tokens for sample in model.samples.speed} == {evaluation.effort.new_tokens}
        assert len({sample.repetition for sample in model.samples.speed}) >= 5
        lengths = sorted({sample.prompt_tokens for sample in model.samples.speed})
        assert min(lengths) <= 34
        assert max(lengths) >= 380
        assert [sample.failed for sample in model.samples.throughput] == [0, 0, 0]


def test_the_machine_and_its_packages_stand_beside_the_figures(evaluation):
    assert evaluation.machine.packages["onnxruntime-genai"]
    assert evaluation.machine.memory_bandwidth_gb_s > 0.5


def test_every_answer_is_a_trace_of_an_evaluation_run(project, children, evaluation):
    for model in evaluation.models:
        run = project.client.get_run(model.evaluation_run)
        assert run.data.tags["mlflow.parentRunId"] == children["evaluate"].info.run_id
        assert run.info.status == "FINISHED"
        assert run.data.metrics["right/mean"] == 1.0
        traces = project.client.search_traces(locations=["0"], run_id=run.info.run_id, max_results=500)
        assert len(traces) == evaluation.question_set.asked
        assessed = {assessment.name: assessment.value for assessment in traces[0].info.assessments}
        assert (assessed["right"], assessed["agreement"]) == (True, True)
        assert traces[0].info.token_usage["output_tokens"] > 0


def test_the_champion_is_the_fastest_that_passed_and_the_other_challenges(project, evaluation):
    fastest, slower = sorted(evaluation.models, key=lambda model: model.value("decode_tokens_per_s"), reverse=True)
    assert (fastest.is_champion, slower.is_champion) == (True, False)
    aliases = project.client.get_registered_model("tiny-phi3").aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {
        "champion": fastest.version,
        "challenger": slower.version,
    }
    assert "passes every gate, and decodes" in slower.reason
    assert evaluation.champion.summary == fastest.reason


def test_the_report_is_one_file_and_the_plots_stand_beside_it(children, evaluation):
    artifacts = children["evaluate"].info.artifact_uri
    page = mlflow.artifacts.load_text(f"{artifacts}/report.html")
    assert re.search(r"""(src|href)=["']https?:|url\(\s*["']?https?:""", page) is None
    for model in evaluation.models:
        assert model.label in page
    for plot in ("quality_against_speed", "kl_histogram", "latency", "throughput", "cost_by_length"):
        assert mlflow.artifacts.load_text(f"{artifacts}/plots/{plot}.svg").rstrip().endswith("</svg>")


def test_each_wrapper_is_a_version_that_explains_itself(project, children):
    versions = project.client.search_model_versions("name = 'tiny-phi3'")
    by_wrapper = {version.tags["wrapper"]: version for version in versions}
    assert sorted(by_wrapper) == ["onnx-genai", "transformers"]
    assert by_wrapper["onnx-genai"].tags["precision"] == "int4"
    assert by_wrapper["transformers"].tags["precision"] == "bfloat16"
    for version in versions:
        assert version.tags["checkpoint_run"] == children["fetch_model"].info.run_id
        assert version.tags["evaluation_run"] == children["evaluate"].info.run_id
        assert version.tags["gates"] == "passed"
        assert version.tags["promotion"]
        assert "tiny-phi3" in version.description
        assert "| model" in version.description, "the comparison stands below"
