"""Build evaluations with the product's own types, so that they hold what evaluation.json can hold."""

import math
import random
import statistics
from typing import Any, TypeVar

from steps.checkpoint.manifest import Origin
from steps.common.documents import Part
from steps.evaluation.method import EffortUsed, GateLimit, GatesFile, Machine, QuestionSet, ScoredText
from steps.evaluation.results import (
    ChampionDecision,
    EvaluatedModel,
    Evaluation,
    Figure,
    GateResult,
    Histogram,
    JudgedAnswer,
    NotableQuestion,
    Pair,
    Reference,
    Samples,
    SpeedSample,
    ThroughputSample,
)

LENGTHS = (32, 128, 512)
NEW_TOKENS = 32
AnyPart = TypeVar("AnyPart", bound=Part)


def changed(part: AnyPart, **fields: Any) -> AnyPart:
    """Return a part with other values in some fields, checked as if it were read from a file."""
    return type(part).model_validate(part.model_dump() | fields)


def with_figures(model: EvaluatedModel, **figures: Figure | float | None) -> EvaluatedModel:
    """Return a model with other figures; a number stands for a figure without an error."""
    new = {name: figure if isinstance(figure, Figure) else Figure(value=figure) for name, figure in figures.items()}
    return changed(model, figures=model.figures | new)


def with_models(evaluation: Evaluation, *models: EvaluatedModel) -> Evaluation:
    """Return an evaluation with other models."""
    return changed(evaluation, models=models)


def model(label: str, speed: float, kl: float, *, accuracy: float = 0.97, is_champion: bool = False) -> EvaluatedModel:
    """Return a model that was measured in every way.

    Args:
        speed: decoded tokens per second.
        kl: the mean KL divergence in nats.
    """
    dice = random.Random(label)
    samples = [_speed_sample(repetition, length, speed, dice) for repetition in range(10) for length in LENGTHS]
    rates = {1: speed / 40, 4: speed / 25, 8: speed / 22}
    return EvaluatedModel(
        label=label,
        uri=f"models:/m-{abs(int(speed)):032x}",
        model_id=f"m-{abs(int(speed)):032x}",
        version=4,
        given=True,
        was_champion=False,
        is_champion=is_champion,
        alias="champion" if is_champion else "challenger",
        reason="the fastest of those that pass every gate" if is_champion else "slower than the champion",
        evaluation_run="9" * 32,
        ignores_eos=True,
        no_fidelity_reason=None,
        figures=_figures(samples, speed, kl, accuracy)
        | {f"requests_per_s_{clients}": Figure(value=rate) for clients, rate in rates.items()},
        kl_histogram=_histogram(kl, dice),
        gates=(GateResult(text=f"accuracy {accuracy:g} >= 0.9", passed=True),),
        samples=Samples(
            load_s=0.41,
            first_call_s=0.031,
            speed=tuple(samples),
            throughput=tuple(
                ThroughputSample(clients=clients, requests=8, seconds=8 / rate, output_tokens=256, failed=0, error=None)
                for clients, rate in rates.items()
            ),
        ),
    )


def _speed_sample(repetition: int, length: int, speed: float, dice: random.Random) -> SpeedSample:
    token = dice.lognormvariate(0, 0.06) / speed
    return SpeedSample(
        repetition=repetition,
        prompt_tokens=length + 2,
        first_token_s=(0.002 + length / speed / 14) * dice.lognormvariate(0, 0.1),
        cached_first_token_s=0.6 * token,
        cached_answer_s=(NEW_TOKENS - 0.4) * token,
        new_tokens=NEW_TOKENS,
    )


def _figures(samples: list[SpeedSample], speed: float, kl: float, accuracy: float) -> dict[str, Figure]:
    middle = [sample for sample in samples if sample.prompt_tokens == LENGTHS[1] + 2]
    firsts = sorted(1e3 * sample.first_token_s for sample in middle)
    laters = sorted(
        1e3 * (sample.cached_answer_s - sample.cached_first_token_s) / (NEW_TOKENS - 1) for sample in middle
    )
    ttft = statistics.median(firsts)
    return {
        "accuracy": Figure(value=accuracy, interval=(accuracy - 0.04, min(1, accuracy + 0.02))),
        "judged": Figure(value=None),
        "agreement": Figure(value=0.96, interval=(0.91, 0.99)),
        "perplexity": Figure(value=9.12 * math.exp(kl / 2), standard_error=0.31),
        "ln_perplexity_ratio": Figure(value=kl / 2, standard_error=kl / 11),
        "kl_mean": Figure(value=kl, standard_error=kl / 9),
        "kl_median": Figure(value=kl / 3),
        "kl_99": Figure(value=9 * kl),
        "kl_max": Figure(value=60 * kl),
        "same_top": Figure(value=1 - min(0.3, kl), standard_error=0.004),
        "rms_dp": Figure(value=min(0.2, 2 * kl), standard_error=0.002),
        "ttft_ms": Figure(value=ttft, interval=(0.97 * ttft, 1.04 * ttft)),
        "ttft_p95_ms": Figure(value=firsts[-1]),
        "tpot_ms": Figure(value=statistics.median(laters)),
        "tpot_p95_ms": Figure(value=laters[-1]),
        "prefill_tokens_per_s": Figure(value=130e3 / ttft, interval=(125e3 / ttft, 134e3 / ttft)),
        "decode_tokens_per_s": Figure(value=speed, interval=(0.96 * speed, 1.03 * speed)),
        "peak_memory_mb": Figure(value=290 + 1e5 / speed),
        "size_mb": Figure(value=1.5 + 600 / speed),
        "load_s": Figure(value=0.41),
        "first_call_ms": Figure(value=31.0),
        "bandwidth_share": Figure(value=0.57),
    }


def _histogram(kl: float, dice: random.Random) -> Histogram:
    tokens = [math.exp(dice.gauss(math.log(kl) - 1, 1.5)) for _ in range(1000)]
    edges = [10 ** (n / 4 - 8) for n in range(41)]
    counts = [sum(low <= value < high for value in tokens) for low, high in zip(edges, edges[1:], strict=False)]
    return Histogram(edges=tuple(edges), counts=tuple(counts))


def pair(label: str, against: str, **fields: Any) -> Pair:
    """Return a pair that differs in speed and not in its answers."""
    differing = Pair(
        model=label,
        against=against,
        accuracy_difference=-0.01,
        accuracy_interval=(-0.03, 0.01),
        only_model_right=1,
        only_against_right=2,
        mcnemar_p=0.62,
        p_worse=0.31,
        speed_ratio=12.34,
        speed_interval=(11.9, 12.6),
        speed_p=1.0,
    )
    return changed(differing, **fields)


def evaluation(*models: EvaluatedModel, **fields: Any) -> Evaluation:
    """Return an evaluation of models; the first champion among them is the champion."""
    champion = next((model.label for model in models if model.is_champion), None)
    labels = [model.label for model in models]
    whole = Evaluation(
        run="20c8271b908d42bda4aa81d14fa7787f",
        checkpoint=Origin(
            kind="hub",
            location="example/tiny-phi3",
            name="tiny-phi3",
            commit="0a67737cc96d2554230f90338b163bc6380a2a85",
        ),
        reference=Reference(
            dtype="bfloat16",
            figures={
                "accuracy": Figure(value=0.98, interval=(0.95, 1.0)),
                "perplexity": Figure(value=9.12, interval=(8.6, 9.7)),
            },
        ),
        question_set=QuestionSet(
            path="sets/qa.jsonl", sha256="e" * 64, questions=229, asked=100, kinds={"exact": 100}, max_tokens=128
        ),
        text=ScoredText(path="texts/general.txt", sha256="f" * 64, windows=8, window_tokens=512, scored_tokens=2048),
        gates=GatesFile(path="gates/tiny.yaml", limits=(GateLimit(metric="accuracy", bound="min", limit=0.9),)),
        prefer="speed",
        judge="",
        effort=EffortUsed(
            name="quick",
            questions=100,
            tokens=1024,
            prompt_lengths=LENGTHS,
            new_tokens=NEW_TOKENS,
            repetitions=10,
            seconds=60.0,
            clients=(1, 4, 8),
            requests=8,
        ),
        interleaved=True,
        machine=Machine(
            cpu="AMD EPYC 7B13",
            usable_cpus=2,
            platform="Linux-6.1-x86_64-with-glibc2.36",
            python="3.11.7",
            packages={"mlflow": "3.17.2", "onnxruntime-genai": "0.15.2", "torch": "2.13.0"},
            memory_bandwidth_gb_s=29.1,
        ),
        champion=ChampionDecision(
            registered_model="tiny-phi3",
            version_before=2,
            version_after=4,
            label=champion,
            summary="It passes every gate and decodes faster than version 2, which was the champion before.",
            has_aliases=True,
        ),
        models=models,
        pairs=tuple(pair(label, labels[0]) for label in labels[1:]),
        notable_questions=(_question(labels),),
        reproduce=("mlflow run . -e evaluate -P models=models:/tiny-phi3/4,models:/tiny-phi3/2 -P effort=quick",),
    )
    return changed(whole, **fields)


def _question(labels: list[str]) -> NotableQuestion:
    wrong = JudgedAnswer(text="Paris", right=False, mistake="expected 'Kabul'")
    right = JudgedAnswer(text="Kabul", right=True, mistake="")
    return NotableQuestion(
        question="What is the capital of Afghanistan?",
        expected="Kabul",
        kind="exact",
        reference_answer="Kabul",
        answers={label: right if n % 2 else wrong for n, label in enumerate(labels)},
    )
