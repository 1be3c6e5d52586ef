"""Cluster files: the JSON that MLflow's `databricks` backend and this project's own job both take."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.common.errors import StepError, nearest

_FORM = '{"new_cluster": {...}, "libraries": [...]} or {"existing_cluster_id": "..."}'
_CLUSTER_KEYS = ("new_cluster", "existing_cluster_id")
_KEYS = (*_CLUSTER_KEYS, "libraries")


@dataclass(frozen=True)
class Cluster:
    """A cluster file, in the terms of the Jobs API (https://docs.databricks.com/api/workspace/jobs/submit)."""

    name: str
    """The file, as the user named it."""
    spec: dict[str, Any]
    """`new_cluster` or `existing_cluster_id`, with its value."""
    libraries: list[dict[str, Any]]
    """Libraries that the cluster installs."""


def read_cluster(file: Path, name: str) -> Cluster:
    """Read a cluster file.

    Args:
        name: the file, as the user named it, for errors.

    Raises:
        StepError: the file cannot be read, is not JSON, or describes no cluster; the line says which.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StepError(f"cluster is {name!r}, which cannot be read as JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise StepError(f"cluster {name}: expected {_FORM}")
    for key in content:
        if key == "cluster_spec":  # a page of MLflow's documentation has this key
            raise StepError(f"cluster {name}: 'cluster_spec' is not what the Jobs API takes; expected {_FORM}")
        if key not in _KEYS:
            raise StepError(f"cluster {name}: no key {key!r}; {nearest(key, _KEYS)}")
    spec = {key: content[key] for key in _CLUSTER_KEYS if key in content}
    libraries, new_cluster = content.get("libraries", []), spec.get("new_cluster", {})
    if len(spec) != 1 or not isinstance(libraries, list) or not isinstance(new_cluster, dict):
        raise StepError(f"cluster {name}: expected {_FORM}")
    if "new_cluster" in spec:
        machine = "instance_pool_id" if "instance_pool_id" in new_cluster else "node_type_id"
        for key in ("spark_version", machine):
            if not new_cluster.get(key):
                raise StepError(f"cluster {name}: new_cluster has no {key}")
    return Cluster(name, spec, libraries)


def without_environment(content: Any, key: str = "") -> Any:
    """Return a JSON value in which no value of `spark_env_vars` can be read, because the values may be tokens.

    A reference to a secret, {{secrets/scope/key}}, stays: it is not the secret.

    Args:
        key: the path of `content` in the whole value.
    """
    if isinstance(content, dict):
        return {name: without_environment(value, f"{key}.{name}") for name, value in content.items()}
    if isinstance(content, list):
        return [without_environment(value, key) for value in content]
    if ".spark_env_vars." in key and not str(content).startswith("{{secrets/"):
        return "<not logged>"
    return content
