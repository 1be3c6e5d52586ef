"""Cluster specifications: a JSON file as both MLflow's `databricks` backend and this project's own job take it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.errors import StepError, nearest

_FORM = '{"new_cluster": {...}, "libraries": [...]} or {"existing_cluster_id": "..."}'
_NEEDED = ("spark_version", "node_type_id")


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
        if key not in ("new_cluster", "existing_cluster_id", "libraries"):
            known = ("new_cluster", "existing_cluster_id", "libraries")
            raise StepError(f"cluster {given}: no key {key!r}; {nearest(key, known)}")
    place = {key: content[key] for key in ("new_cluster", "existing_cluster_id") if key in content}
    libraries = content.get("libraries", [])
    if len(place) != 1 or not isinstance(libraries, list):
        raise StepError(f"cluster {given}: expected {_FORM}")
    new = place.get("new_cluster")
    if new is not None:
        missing = [key for key in _NEEDED if not (isinstance(new, dict) and new.get(key))]
        if missing and not (isinstance(new, dict) and new.get("instance_pool_id") and missing == ["node_type_id"]):
            raise StepError(f"cluster {given}: new_cluster has no {missing[0]}")
    return Cluster(place, libraries)
