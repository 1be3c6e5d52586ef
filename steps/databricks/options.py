"""The options of `submit_databricks`: what the user gives as text, checked and parsed once."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.common.errors import StepError, nearest, one_of
from steps.databricks.cluster import Cluster, read_cluster
from steps.databricks.git_source import git_source

_ENV_MANAGERS = ("uv", "virtualenv", "conda", "local")

Declared = Mapping[str, Mapping[str, str | None]]  # entry point -> parameter -> default, None if it has no default


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    entry_point: str
    parameters: dict[str, str]
    """Parameters of the entry point, without defaults."""
    cluster: Cluster
    git: dict[str, str] | None
    """The Jobs API's `git_source`; None if the job runs the files that are here."""
    experiment: str
    """The name of an experiment, or empty."""
    env_manager: str
    uc_schema: str
    """catalog.schema of registered models with a short name, or empty."""
    timeout_s: int
    """Seconds that the job may take; 0 for no limit."""


def parse_options(params: Mapping[str, str], root: Path, declared: Declared) -> Options:
    """Parse the parameters of `submit_databricks`.

    Args:
        params: the parameters by name, all of them.
        root: the project's folder. The cluster file is relative to it.
        declared: the entry points that can run on a cluster.

    Raises:
        StepError: a value is wrong, or the cluster file is.
    """
    entry_point = one_of("entry_point", params["entry_point"], declared)
    env_manager = one_of("env_manager", params["env_manager"], _ENV_MANAGERS)
    if not params["timeout"].isdecimal():
        raise StepError(f"timeout is {params['timeout']!r}; expected seconds as a whole number, or 0 for no limit")
    if params["uc_schema"] and params["uc_schema"].count(".") != 1:
        raise StepError(f"uc_schema is {params['uc_schema']!r}; expected catalog.schema")
    return Options(
        entry_point=entry_point,
        parameters=_parameters(params["params"], entry_point, declared[entry_point]),
        cluster=read_cluster(root / params["cluster"], params["cluster"]),
        git=_git(params["source"], params["version"]),
        experiment=params["experiment"],
        env_manager=env_manager,
        uc_schema=params["uc_schema"],
        timeout_s=int(params["timeout"]),
    )


def _git(source: str, version: str) -> dict[str, str] | None:
    """Return the `git_source` for the parameters `source` and `version`; None for the files that are here."""
    if source != "workspace":
        if "://" not in source:
            raise StepError(f"source is {source!r}; expected workspace, or the URL of a git repository")
        return git_source(source, version)
    if version:
        raise StepError(
            f"version is {version!r}, but source is workspace: leave version out, or give a git URL as source"
        )
    return None


def _parameters(text: str, entry_point: str, declared: Mapping[str, str | None]) -> dict[str, str]:
    """Parse `name=value name='a value'`.

    Raises:
        StepError: the text has another form, a name is unknown, or a required parameter is missing.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise StepError(f"params is {text!r}: {error}") from None
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise StepError(f"params has {word!r}; expected name=value, with a space before the next name=value")
        if name not in declared:
            raise StepError(f"params: {name!r} is unknown to {entry_point}; {nearest(name, declared)}")
        values[name] = value
    missing = [name for name, default in declared.items() if default is None and not values.get(name)]
    if missing:
        raise StepError(f"params: {entry_point} needs a value for {', '.join(missing)}: params='{missing[0]}=...'")
    return values
