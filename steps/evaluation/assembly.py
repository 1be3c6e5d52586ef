"""Turn what was measured into an Evaluation: figures, results of the gates, and the decision about the champion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from steps.checkpoint.manifest import Manifest
from steps.evaluation import summary
from steps.evaluation.inputs.windows import WINDOW_TOKENS
from steps.evaluation.measure import measured as measure
from steps.evaluation.method import Machine, ScoredText
from steps.evaluation.request import Request
from steps.evaluation.results import (
    ChampionDecision,
    EvaluatedModel,
    Evaluation,
    Figure,
    GateResult,
    Reference,
)
from steps.evaluation.subject import Subject
from steps.evaluation.verdict.comparison import Candidate
from steps.evaluation.verdict.gates import judge
from steps.evaluation.verdict.promotion import Decision, decide


@dataclass(frozen=True)
class Origins:
    """What an evaluation belongs to."""

    run_id: str
    checkpoint: Manifest
    command: str  # that evaluates again
    has_aliases: bool  # whether the registry has aliases


@dataclass(frozen=True)
class Interview:
    """The run in which a model was asked the questions, and the share of its answers that the judge calls correct."""

    run_id: str
    judged: float | None


@dataclass(frozen=True)
class Findings:
    """What was measured of the reference, of the models and of the machine."""

    subjects: tuple[Subject, ...]
    reference: measure.Reference
    measurements: measure.Measurements
    interviews: Mapping[str, Interview]  # by label
    machine: Machine

    @property
    def champion(self) -> Subject | None:
        """The champion before this evaluation."""
        return next((subject for subject in self.subjects if subject.is_champion), None)


@dataclass(frozen=True)
class _JudgedModel:
    """A model with its figures, the results of the gates, and what it can be compared by."""

    subject: Subject
    figures: summary.ModelFigures
    gates: tuple[GateResult, ...]
    evidence: summary.Evidence


def assemble(request: Request, origins: Origins, findings: Findings) -> Evaluation:
    """Return the evaluation: figures, results of the gates, and the decision about the champion."""
    measured = findings.measurements.measured
    of_reference = summary.reference_figures(request.questions, findings.reference, measured.values())
    judged = _judge_all(request, findings, of_reference)
    decision = decide(_candidates(request, judged), request.prefer)
    models = tuple(_evaluated_model(request, findings, one, decision) for one in judged)
    return Evaluation(
        run=origins.run_id,
        checkpoint=origins.checkpoint.origin,
        reference=Reference(dtype=origins.checkpoint.architecture.dtype, figures=of_reference),
        question_set=request.question_set.model_copy(update={"max_tokens": findings.reference.rule.max_tokens}),
        text=_scored_text(request, findings.reference),
        gates=request.gates,
        prefer=request.prefer,
        judge=request.judge,
        effort=request.effort_used,
        interleaved=findings.measurements.interleaved,
        machine=findings.machine,
        champion=_champion_decision(request, findings.champion, models, decision, origins.has_aliases),
        models=models,
        pairs=summary.pairs({model.subject.label: model.evidence for model in judged}),
        notable_questions=summary.notable_questions(request.questions, findings.reference, measured),
        reproduce=(origins.command,),
    )


def _judge_all(request: Request, findings: Findings, of_reference: dict[str, Figure]) -> list[_JudgedModel]:
    """Return each model that could be measured, with the results of the gates."""
    measured = findings.measurements.measured
    subjects = [subject for subject in findings.subjects if subject.label in measured]
    figures = {subject.label: _model_figures(request, findings, subject.label) for subject in subjects}
    of_champion = None
    if findings.champion:
        of_champion = figures[findings.champion.label].figures if findings.champion.label in figures else {}
    return [
        _JudgedModel(
            subject=subject,
            figures=figures[subject.label],
            gates=tuple(
                judge(gate, figures[subject.label].figures, of_reference, of_champion) for gate in request.gates.limits
            ),
            evidence=summary.evidence(measured[subject.label], request.questions),
        )
        for subject in subjects
    ]


def _model_figures(request: Request, findings: Findings, label: str) -> summary.ModelFigures:
    """Return the figures of a model, with the judge's."""
    bandwidth = 1e9 * findings.machine.memory_bandwidth_gb_s
    of_model = summary.model_figures(
        findings.measurements.measured[label], request.questions, findings.reference, bandwidth
    )
    judged = Figure(value=findings.interviews[label].judged)
    return summary.ModelFigures(of_model.figures | {"judged": judged}, of_model.kl_histogram)


def _candidates(request: Request, judged: list[_JudgedModel]) -> list[Candidate]:
    """Return the models that can be champion: with a registered model, those that are a version of it."""
    return [
        Candidate(
            label=model.subject.label,
            version=model.subject.version,
            given=model.subject.given,
            is_champion=model.subject.is_champion,
            failed_gates=tuple(gate.text for gate in model.gates if not gate.passed),
            figures=model.figures.figures,
            evidence=model.evidence,
        )
        for model in judged
        if model.subject.version or not request.registered_model
    ]


def _evaluated_model(request: Request, findings: Findings, judged: _JudgedModel, decision: Decision) -> EvaluatedModel:
    subject = judged.subject
    measured = findings.measurements.measured[subject.label]
    no_version = f"not a version of {request.registered_model}" if request.registered_model else ""
    return EvaluatedModel(
        label=subject.label,
        uri=subject.uri,
        model_id=subject.model_id,
        version=subject.version,
        given=subject.given,
        was_champion=subject.is_champion,
        is_champion=decision.champion == subject.label or (decision.champion is None and subject.is_champion),
        alias=_alias(subject, decision),
        reason=decision.reasons.get(subject.label, no_version),
        evaluation_run=findings.interviews[subject.label].run_id,
        ignores_eos=measured.ignores_eos,
        no_fidelity_reason=measured.no_fidelity_reason,
        figures=judged.figures.figures,
        kl_histogram=judged.figures.kl_histogram,
        gates=judged.gates,
        samples=measured.samples,
    )


def _alias(subject: Subject, decision: Decision) -> Literal["", "champion", "challenger", "previous"]:
    """Return the alias of a model from now on; empty for none."""
    if decision.champion == subject.label:
        return "champion"
    if subject.is_champion:
        return "previous" if decision.champion else "champion"
    return "challenger" if decision.challenger == subject.label else ""


def _champion_decision(
    request: Request,
    before: Subject | None,
    models: tuple[EvaluatedModel, ...],
    decision: Decision,
    has_aliases: bool,
) -> ChampionDecision:
    champion = next((model for model in models if model.is_champion), None)
    version_before = before.version if before else None
    return ChampionDecision(
        registered_model=request.registered_model,
        version_before=version_before,
        version_after=champion.version if champion and decision.champion else version_before,
        label=champion.label if champion else None,
        summary=decision.summary,
        has_aliases=has_aliases,
    )


def _scored_text(request: Request, reference: measure.Reference) -> ScoredText:
    return ScoredText(
        path=request.text.path,
        sha256=request.text.sha256,
        windows=len(reference.windows),
        window_tokens=WINDOW_TOKENS,
        scored_tokens=reference.scored_tokens,
    )
