"""Promotion by evidence: which version gets the alias `champion`, and why the others don't.

Invariant: a version that fails a gate never takes the alias, and the same versions evaluated again give the same
champion. People serve `models:/name@champion`, so a change must be worth it, and noise must not move the alias to and
fro. So a new version takes over when it is not worse beyond noise, and an older version only when it is better.

    a given version, the best first
      | passes every gate?                              no -> not promoted
      | is there a champion that passes every gate?     no -> takes the alias
      | is it worse than the champion beyond noise?    yes -> not promoted
      | is it older than the champion?                  no -> takes the alias
      | is it better than the champion beyond noise?    no -> not promoted
      v
    takes the alias

"Best" and "worse" are by the user's preference: speed, quality or size. The best given version that does not take the
alias becomes the challenger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from steps.evaluation.results import Preference
from steps.evaluation.verdict.comparison import Candidate, Comparison, behind, compare, rank


@dataclass(frozen=True)
class Decision:
    """Labels by alias, and the reasons in words."""

    champion: str | None  # the model that takes the alias; None: the alias stays where it is
    challenger: str | None
    reasons: dict[str, str]  # by label
    summary: str


@dataclass(frozen=True)
class _Choice:
    """The version that takes the alias, if any does, and what speaks against versions that were compared."""

    winner: Candidate | None
    summary: str
    losses: dict[str, str] = field(default_factory=dict)  # by label


def decide(candidates: Sequence[Candidate], prefer: Preference) -> Decision:
    """Choose the champion among evaluated versions. See the head of this file for the rules.

    Args:
        candidates: at most one of them is the present champion.
    """
    champion = next((candidate for candidate in candidates if candidate.is_champion), None)
    new = [candidate for candidate in candidates if candidate.given and not candidate.is_champion]
    ranked = sorted(new, key=lambda candidate: (bool(candidate.failed_gates), *rank(candidate, prefer)))
    choice = _choose(champion, ranked, prefer)
    return Decision(
        champion=choice.winner.label if choice.winner else None,
        challenger=next((candidate.label for candidate in ranked if candidate is not choice.winner), None),
        reasons={candidate.label: _reason(candidate, choice, prefer) for candidate in ranked}
        | ({champion.label: _champion_reason(champion, choice)} if champion else {}),
        summary=choice.summary,
    )


def _choose(champion: Candidate | None, ranked: list[Candidate], prefer: Preference) -> _Choice:
    """Return which version takes the alias.

    Args:
        ranked: the given versions that are not the champion, the best first.
    """
    passing = [candidate for candidate in ranked if not candidate.failed_gates]
    if not ranked:
        summary = f"{champion.label} stays: no other version was given" if champion else "no version was given"
        return _Choice(None, summary)
    if not passing:
        stays = f"; {champion.label} stays" if champion else ""
        return _Choice(None, f"no given version passes every gate{stays}")
    best = passing[0]
    if champion is None:
        of_several = f", the best of {len(passing)} by {prefer}" if len(passing) > 1 else ""
        return _Choice(best, f"{best.label} passes every gate{of_several}; there was no champion")
    if champion.failed_gates:
        return _Choice(best, f"{best.label} passes every gate, and the champion until now no longer does")
    return _challenge(champion, passing, prefer)


def _challenge(champion: Candidate, passing: list[Candidate], prefer: Preference) -> _Choice:
    """Return the first version that may replace a champion that passes its gates."""
    losses: dict[str, str] = {}
    for candidate in passing:
        comparison = _compare_by_age(candidate, champion, prefer)
        if not comparison.is_worse:
            return _Choice(candidate, f"{candidate.label} passes every gate and {comparison.words}", losses)
        losses[candidate.label] = f"{comparison.words}, which is champion"
    best = passing[0].label
    return _Choice(None, f"{champion.label} stays: {best} {losses[best]}", losses)


def _compare_by_age(candidate: Candidate, champion: Candidate, prefer: Preference) -> Comparison:
    """Compare a version with the champion. An older version that is not better counts as worse."""
    comparison = compare(candidate, champion, prefer)
    is_older = (candidate.version or 0) < (champion.version or 0)
    if comparison.is_worse or not is_older:
        return comparison
    if compare(champion, candidate, prefer).is_worse:
        return Comparison(False, f"is older, and better beyond noise: it {comparison.words}")
    return Comparison(True, f"is older, and {comparison.words}")


def _reason(candidate: Candidate, choice: _Choice, prefer: Preference) -> str:
    """Return why a given version took the alias, or why it didn't."""
    if candidate is choice.winner:
        return choice.summary
    if candidate.failed_gates:
        return f"fails: {'; '.join(candidate.failed_gates)}"
    if candidate.label in choice.losses or choice.winner is None:
        return choice.losses[candidate.label]
    return f"passes every gate, and {behind(candidate, choice.winner, prefer)}"


def _champion_reason(champion: Candidate, choice: _Choice) -> str:
    if choice.winner:
        return f"was champion; {choice.summary}"
    if champion.failed_gates:
        return f"champion, and fails: {'; '.join(champion.failed_gates)}"
    return choice.summary
