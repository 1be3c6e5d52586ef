"""From a request and measurements to an Evaluation, without a model and without a tracking server."""

import json
from pathlib import Path

import pytest

from steps.checkpoint.manifest import Architecture, CanonicalForm, Manifest, Origin
from steps.common.errors import StepError
from steps.common.hashing import FileEntry
from steps.evaluation.assembly import Findings, Interview, Origins, assemble
from steps.evaluation.measure.measured import Measured, Measurements, Reference
from steps.evaluation.measure.model_process import Answer
from steps.evaluation.method import Machine
from steps.evaluation.request import Request, read_request
from steps.evaluation.results import Evaluation, Samples, SpeedSample
from steps.evaluation.subject import Subject

pytestmark = pytest.mark.unit

ANSWERS = ["0", "1", "2", "3"]
PARAMS = {
    "models": "models:/phi/2, models:/phi/3",
    "reference_run": "0" * 32,
    "evalset": "set.jsonl",
    "text": "text.txt",
    "gates": "gates.yaml",
    "registered_model": "phi",
    "effort": "quick",
    "prefer": "speed",
    "judge": "",
}
CHECKPOINT = Manifest(
    origin=Origin(kind="folder", location="phi", name="phi", commit=""),
    licence="mit",
    architecture=Architecture(
        architecture="Phi3ForCausalLM",
        parameters=1,
        dtype="bfloat16",
        context_length=None,
        layers=None,
        hidden_size=None,
        vocabulary=None,
        attention_heads=None,
        kv_heads=None,
        rope="default",
        partial_rotary_factor=1.0,
        tied_embeddings=False,
    ),
    wrappers=("transformers", "custom"),
    canonical=CanonicalForm(
        changes=(),
        ignored_files=(),
        end_tokens=(1,),
        end_token_sources=("config.json",),
        has_chat_template=True,
        builds_tokenizer=False,
    ),
    files=(FileEntry(path="config.json", size=1, sha256="0" * 64),),
)
MACHINE = Machine(cpu="a CPU", usable_cpus=2, platform="", python="", packages={}, memory_bandwidth_gb_s=10.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the parameters name."""
    lines = [{"messages": [{"role": "user", "content": f"{n} + 0?"}], "expected": str(n)} for n in range(4)]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "text.txt").write_text("It was the best of times.")
    (tmp_path / "gates.yaml").write_text("accuracy: {min: 0.5}\ndecode_tokens_per_s: {champion: {min_ratio: 0.1}}")
    return tmp_path


@pytest.fixture
def phi_request(folder: Path) -> Request:
    """What the parameters ask for."""
    return read_request(PARAMS, folder)


def measured(answers: list[str], decode_s: float) -> Measured:
    """Return what was measured of a model that needs `decode_s` for each token."""
    speed = tuple(
        SpeedSample(
            repetition=repetition,
            prompt_tokens=50,
            first_token_s=0.1,
            cached_first_token_s=0.1,
            cached_answer_s=0.1 + 32 * decode_s * (1 + repetition / 1000),
            new_tokens=33,
        )
        for repetition in range(8)
    )
    return Measured(
        size_bytes=1,
        ignores_eos=True,
        peak_rss_bytes=1,
        samples=Samples(load_s=1.0, first_call_s=1.0, speed=speed, throughput=()),
        answers=[Answer(text, 3, 2, 0.1) for text in answers],
        scores=None,
        no_fidelity_reason="no logits",
        bytes_read_per_token=None,
    )


def assembled(request: Request, subjects: list[Subject], models: dict[str, Measured]) -> Evaluation:
    """Return the evaluation of models; a subject that is not among them could not be measured."""
    failures = {subject.label: "it is gone" for subject in subjects if subject.label not in models}
    findings = Findings(
        subjects=tuple(subjects),
        reference=Reference(ANSWERS, [], [], Path("none"), 0),
        measurements=Measurements(models, failures, interleaved=True),
        interviews={label: Interview(f"run of {label}", judged=0.75) for label in models},
        machine=MACHINE,
    )
    evaluation = assemble(request, Origins("run", CHECKPOINT, "mlflow run .", has_aliases=True), findings)
    assert Evaluation.parse(evaluation.to_json(), "evaluation.json") == evaluation
    return evaluation


def subject(label: str, version: int | None, given: bool = True, is_champion: bool = False) -> Subject:
    return Subject(label, f"models:/phi/{version}", None, version, given, is_champion)


OLD = subject("old", 1, given=False, is_champion=True)


def test_the_first_champion(phi_request):
    models = {"slow": measured(ANSWERS, 0.1), "fast": measured(ANSWERS, 0.01)}
    evaluation = assembled(phi_request, [subject("slow", 2), subject("fast", 3)], models)
    slow, fast = evaluation.models
    assert (slow.alias, fast.alias) == ("challenger", "champion")
    assert evaluation.champion_model == fast
    champion = evaluation.champion
    assert (champion.version_before, champion.version_after, champion.label) == (None, 3, "fast")
    assert (fast.value("judged"), fast.evaluation_run) == (0.75, "run of fast")
    assert "decode_tokens_per_s against the champion: there is none yet" in [gate.text for gate in fast.gates]
    assert evaluation.question_set.kinds == {"exact": 4}
    assert evaluation.effort.name == "quick"


def test_a_champion_that_is_beaten_becomes_previous(phi_request):
    models = {"new": measured(ANSWERS, 0.01), "old": measured(ANSWERS, 0.1)}
    evaluation = assembled(phi_request, [subject("new", 2), OLD], models)
    new, old = evaluation.models
    assert (new.alias, old.alias) == ("champion", "previous")
    assert (old.was_champion, old.is_champion) == (True, False)
    assert (evaluation.champion.version_before, evaluation.champion.version_after) == (1, 2)


def test_a_champion_that_is_better_stays(phi_request):
    models = {"new": measured(ANSWERS, 0.1), "old": measured(ANSWERS, 0.01)}
    evaluation = assembled(phi_request, [subject("new", 2), OLD], models)
    new, old = evaluation.models
    assert (new.alias, old.alias) == ("challenger", "champion")
    assert (old.was_champion, old.is_champion, evaluation.champion.label) == (True, True, "old")
    assert (evaluation.champion.version_before, evaluation.champion.version_after) == (1, 1)
    assert not evaluation.is_rejection, "the new version passes its gates"


def test_a_gate_against_a_champion_that_could_not_be_measured_fails(phi_request):
    evaluation = assembled(phi_request, [subject("new", 2), OLD], {"new": measured(ANSWERS, 0.01)})
    (new,) = evaluation.models
    assert new.failed_gates == ("decode_tokens_per_s of the champion could not be measured",)
    assert evaluation.is_rejection
    champion = evaluation.champion
    assert (champion.version_before, champion.version_after, champion.label) == (1, 1, None)


def test_with_a_registered_model_only_its_versions_can_be_champion(phi_request):
    models = {"theirs": measured(ANSWERS, 0.001), "ours": measured(ANSWERS, 0.1)}
    theirs, ours = assembled(phi_request, [subject("theirs", None), subject("ours", 2)], models).models
    assert (theirs.alias, theirs.reason) == ("", "not a version of phi")
    assert ours.is_champion


def test_without_a_registered_model_every_model_can_be_champion(folder):
    request = read_request(PARAMS | {"registered_model": ""}, folder)
    models = {"theirs": measured(ANSWERS, 0.001), "ours": measured(ANSWERS, 0.1)}
    evaluation = assembled(request, [subject("theirs", None), subject("ours", None)], models)
    assert evaluation.champion.label == "theirs"
    assert evaluation.champion.version_after is None


def test_the_models_are_taken_apart(phi_request):
    assert phi_request.models == ("models:/phi/2", "models:/phi/3")


@pytest.mark.parametrize(
    ("param", "value", "message"),
    [
        ("models", "models:/phi/1,", "models is 'models:/phi/1,'; expected MLflow model URIs separated by commas"),
        ("effort", "quik", "effort is 'quik'; did you mean 'quick'"),
        ("prefer", "luck", "prefer is 'luck'; valid: quality, size, speed"),
        ("judge", "gpt-5", "judge is 'gpt-5'; expected nothing, or a model for MLflow's judges"),
        ("evalset", "no.jsonl", "evalset .*no.jsonl cannot be read"),
        ("text", "no.txt", "text .*no.txt cannot be read"),
        ("gates", "no.yaml", "gates .*no.yaml cannot be read"),
    ],
)
def test_a_wrong_parameter_is_refused(folder, param, value, message):
    with pytest.raises(StepError, match=message):
        read_request(PARAMS | {param: value}, folder)
