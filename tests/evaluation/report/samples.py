"""The evaluations that the tests show: the usual one, one with many models, one of a stranger, and a hostile one."""

from steps.checkpoint.manifest import Origin
from steps.evaluation.results import (
    ChampionDecision,
    Evaluation,
    Figure,
    GateResult,
    JudgedAnswer,
    NotableQuestion,
    Reference,
    Samples,
)
from tests.evaluation.report.evaluations import changed, evaluation, model

HOSTILE = "<script>alert(1)</script><img src=https://example.com/x onerror=alert(2)> | {{ 7 * 7 }} $x$ </pre></div>"
LONG_LABELS = (
    "transformers-bfloat16",
    "onnx-genai-int4-block_size-128-last_matmul-int8",
    "onnx-genai-int4-block_size-32-accuracy_level-4",
    "onnx-genai-fp32",
    "onnx-optimum-int8-per_channel-$x$",
)


def two() -> Evaluation:
    """Return the usual case: both wrappers of one checkpoint."""
    slow, fast = model("transformers-bfloat16", 331, 2e-6), model("onnx-genai-int4", 4056, 0.012, is_champion=True)
    return evaluation(slow, fast)


def five() -> Evaluation:
    """Return models with long labels; two of them fail gates, and the last fails two gates."""
    models = [
        model(label, 300 * 1.9**n, 0.004 * (n + 0.02), accuracy=0.98 - 0.02 * n, is_champion=n == 2)
        for n, label in enumerate(LONG_LABELS)
    ]
    failed = {3: ("size_mb 7640 > 4000",), 4: ("accuracy 0.9 < 0.95", "kl_mean could not be measured")}
    for n, texts in failed.items():
        gates = (*models[n].gates, *(GateResult(text=text, passed=False) for text in texts))
        models[n] = changed(models[n], alias="", gates=gates)
    return evaluation(*models)


def alien() -> Evaluation:
    """Return a single model of another project: it answers, and nothing more could be measured."""
    measured = model("their-model", 100, 0.01)
    their_model = changed(
        measured,
        version=None,
        model_id=None,
        alias="",
        reason="",
        ignores_eos=False,
        no_fidelity_reason="its vocabulary has 7 tokens",
        kl_histogram=None,
        figures=dict.fromkeys(measured.figures, Figure(value=None)) | {"accuracy": Figure(value=0.5)},
        gates=(GateResult(text="kl_mean could not be measured", passed=False),),
        samples=Samples(load_s=0.4, first_call_s=0.03, speed=(), throughput=()),
    )
    return evaluation(
        their_model,
        checkpoint=Origin(kind="folder", location="checkpoints/theirs", name="theirs", commit=""),
        champion=ChampionDecision(
            registered_model="",
            version_before=None,
            version_after=None,
            label=None,
            summary="no given version passes every gate",
            has_aliases=False,
        ),
        notable_questions=(),
        reference=Reference(dtype="float32", figures={"accuracy": Figure(value=0.5), "perplexity": Figure(value=None)}),
    )


def hostile() -> Evaluation:
    """Return an evaluation where every text from outside is markup, or very long."""
    failed = GateResult(text=f"{HOSTILE} failed", passed=False)
    marked = changed(model(HOSTILE, 50, 0.3, is_champion=True), reason=HOSTILE, gates=(failed,))
    answer = JudgedAnswer(text=HOSTILE, right=False, mistake=HOSTILE)
    question = NotableQuestion(
        question=HOSTILE, expected=HOSTILE, kind=HOSTILE, reference_answer=HOSTILE, answers={HOSTILE: answer}
    )
    long_answer = changed(answer, text="x" * 100_000)
    long_question = changed(question, question="endless " * 5_000, answers={HOSTILE: long_answer})
    return evaluation(
        marked,
        model("other", 90, 0.1),
        notable_questions=(question, long_question),
        checkpoint=Origin(kind="hub", location=HOSTILE, name=HOSTILE, commit=""),
        reproduce=(HOSTILE,),
    )


SAMPLES = {"two": two, "five": five, "alien": alien, "hostile": hostile}
