"""What an evaluation is of: the models that the user named, and the champion that they are compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated."""

    label: str  # a short name, in letters that the name of a metric may have
    uri: str
    model_id: str | None
    version: int | None  # of the registered model
    given: bool  # False: the present champion, added for comparison
    is_champion: bool  # before this evaluation
