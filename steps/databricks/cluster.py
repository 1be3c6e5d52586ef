"""Cluster specifications: a JSON file as both MLflow's `databricks` backend and this project's own job take it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.common.errors import StepError, nearest

_FORM = '{"new_cluster": {...}, "libraries": [...]} or {"existing_cluster_id": "..."}'
_PLACES = ("new_cluster", "existing_cluster_id")


@dataclass(frozen=True)
class Cluster:
    """What a job's task says of its cluster: `new_cluster` or `existing_cluster_id`, and libraries, as the Jobs API has
    them (https://docs.databricks.com/api/workspace/jobs/submit)."""

    place: dict[str, Any]
    libraries: list[dict[str, Any]]


def read_cluster(file: Path, given: str) -> Cluster:
    """Read a cluster file.

    Args:
        given: what the user called it, for errors.

    Raises:
        StepError: it can't be read, is not JSON, or says no cluster; the line says which.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StepError(f"cluster is {given!r}, which cannot be read as JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise StepError(f"cluster {given}: expected {_FORM}")
    for key in content:
        if key == "cluster_spec":  # as MLflow's documentation once had it
            raise StepError(f"cluster {given}: 'cluster_spec' is not what the Jobs API takes; expected {_FORM}")
        if key not in (*_PLACES, "libraries"):
            raise StepError(f"cluster {given}: no key {key!r}; {nearest(key, (*_PLACES, 'libraries'))}")
    place = {key: content[key] for key in _PLACES if key in content}
    libraries, new = content.get("libraries", []), place.get("new_cluster", {})
    if len(place) != 1 or not isinstance(libraries, list) or not isinstance(new, dict):
        raise StepError(f"cluster {given}: expected {_FORM}")
    if "new_cluster" in place:
        machine = "instance_pool_id" if "instance_pool_id" in new else "node_type_id"
        if missing := [key for key in ("spark_version", machine) if not new.get(key)]:
            raise StepError(f"cluster {given}: new_cluster has no {missing[0]}")
    return Cluster(place, libraries)
