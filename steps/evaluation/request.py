"""What the user asks of an evaluation: the parameters, parsed and checked, with the content of the files they name."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from steps.common.errors import StepError, one_of
from steps.common.hashing import sha256
from steps.evaluation.inputs.effort import EFFORTS, Effort
from steps.evaluation.inputs.evalset import read_evalset, spread
from steps.evaluation.inputs.question import Question
from steps.evaluation.inputs.scored_text import TextContent, read_scored_text
from steps.evaluation.measure.measured import ANSWER_TOKENS
from steps.evaluation.method import EffortUsed, GatesFile, QuestionSet
from steps.evaluation.results import Preference
from steps.evaluation.verdict.gates import read_gates

_PREFERENCES: tuple[Preference, ...] = get_args(Preference)
_JUDGE = re.compile(r"[a-z_]+:/.+|databricks")


@dataclass(frozen=True)
class TextFile:
    """The file of the scored text."""

    path: str  # relative to the project's folder, as the user gave it
    sha256: str
    content: TextContent


@dataclass(frozen=True)
class Request:
    """What one evaluation is to do."""

    models: tuple[str, ...]  # URIs
    questions: list[Question]  # that are asked
    question_set: QuestionSet  # that they are from
    text: TextFile
    gates: GatesFile
    registered_model: str  # empty: promote nothing
    effort_name: str
    prefer: Preference
    judge: str  # empty for none

    @property
    def effort(self) -> Effort:
        """How much is measured."""
        return EFFORTS[self.effort_name]

    @property
    def effort_used(self) -> EffortUsed:
        """How much is measured, for evaluation.json."""
        return EffortUsed(name=self.effort_name, **vars(self.effort))


def read_request(params: Mapping[str, str], root: Path) -> Request:
    """Return what the parameters ask for.

    Args:
        params: of the entry point evaluate, by name.
        root: the folder that the paths in the parameters are relative to.

    Raises:
        StepError: a parameter has a wrong value, or a file that it names can't be read or has a wrong line.
    """
    models = tuple(uri.strip() for uri in params["models"].split(","))
    if not all(models):
        raise StepError(f"models is {params['models']!r}; expected MLflow model URIs separated by commas")
    effort_name = one_of("effort", params["effort"], EFFORTS)
    prefer = one_of("prefer", params["prefer"], _PREFERENCES)
    judge = params["judge"]
    check_judge(judge)
    all_questions = read_evalset(root / params["evalset"])
    questions = spread(all_questions, EFFORTS[effort_name].questions)
    content = read_scored_text(root / params["text"])  # before the hash, so that a missing file is one clear line
    return Request(
        models=models,
        questions=questions,
        question_set=QuestionSet(
            path=params["evalset"],
            sha256=sha256(root / params["evalset"]),
            questions=len(all_questions),
            asked=len(questions),
            kinds=dict(Counter(question.kind for question in questions)),
            max_tokens=ANSWER_TOKENS,  # without the thought of a reasoning model: see measured.AnswerRule
        ),
        text=TextFile(params["text"], sha256(root / params["text"]), content),
        gates=GatesFile(path=params["gates"], limits=read_gates(root / params["gates"])),
        registered_model=params["registered_model"],
        effort_name=effort_name,
        prefer=cast(Preference, prefer),  # one_of has checked it
        judge=judge,
    )


def check_judge(judge: str) -> None:
    """Raise StepError if a judge is neither empty nor a model for MLflow's judges."""
    if judge and not _JUDGE.fullmatch(judge):
        raise StepError(
            f"judge is {judge!r}; expected nothing, or a model for MLflow's judges, such as openai:/gpt-5 or "
            "endpoints:/name"
        )
