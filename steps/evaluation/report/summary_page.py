"""The report in brief: Markdown for the description of a run or of a model version."""

from steps.evaluation.report.formatting import capitalised, inline
from steps.evaluation.report.tables import comparison_table, markdown_table
from steps.evaluation.report.wording import verdict_sentence
from steps.evaluation.results import Evaluation


def markdown(evaluation: Evaluation) -> str:
    """Return the verdict, the comparison and what was measured, as Markdown."""
    headline = capitalised(verdict_sentence(evaluation))
    return "\n\n".join(
        [
            f"**{inline(headline)}**: {inline(evaluation.champion.summary)}",
            markdown_table(comparison_table(evaluation)),
            _what_was_measured(evaluation),
            "Charts, tests of the differences and notable questions are in `report.html`; every figure and sample is in"
            " `evaluation.json`.",
        ]
    )


def _what_was_measured(evaluation: Evaluation) -> str:
    questions, text, effort = evaluation.question_set, evaluation.text, evaluation.effort
    sentences = [f"Answers: {questions.asked:,} of the {questions.questions:,} questions of `{questions.path}`."]
    if text.scored_tokens:
        sentences.append(
            f"KL divergence from PyTorch in float32, in nats: {text.scored_tokens:,} tokens of `{text.path}`."
        )
    in_turn = ", the models in turn" if evaluation.interleaved else ""
    sentences.append(
        f"Speed: effort {effort.name}, up to {effort.repetitions} repetitions{in_turn}, on"
        f" {evaluation.machine.usable_cpus} CPUs of {inline(evaluation.machine.cpu)}."
    )
    return " ".join(sentences)
