"""The model registry of Unity Catalog: the calls that MLflow's client for `databricks-uc` makes.

The messages follow mlflow/protos/databricks_uc_registry_messages.proto. As in Unity Catalog, names have three levels,
and a version is pending until it is finalized. A search takes one condition and returns neither tags nor aliases. Files
are written through the Files API, under /Models.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from tests.fakes.databricks.errors import ApiError

USER = "someone@example.com"


class UnityCatalog:
    """Registered models by full name, each with its versions; catalogs and schemas that exist."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.versions: dict[tuple[str, str], dict[str, Any]] = {}
        self.schemas = {"main.default"}

    def routes(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return a pattern of method and path, with the function that answers, for each call."""
        models, versions = (
            "/api/2.0/mlflow/unity-catalog/registered-models",
            "/api/2.0/mlflow/unity-catalog/model-versions",
        )
        flag = "is-databricks-sdk-models-artifact-repository-enabled"
        return [
            (f"GET {models}:{flag}", lambda q: {"is_databricks_sdk_models_artifact_repository_enabled": True}),
            (f"POST {models}/create", self._create_model),
            (f"GET {models}/get", lambda q: {"registered_model": self._model(q["name"])}),
            (f"DELETE {models}/delete", self._delete_model),
            (f"POST {models}/alias", self._set_alias),
            (f"DELETE {models}/alias", self._delete_alias),
            (f"GET {models}/alias", self._by_alias),
            (f"POST {versions}/create", self._create_version),
            (f"POST {versions}/finalize", self._finalize),
            (f"GET {versions}/get", lambda q: {"model_version": self._version(q)}),
            (f"PATCH {versions}/update", self._update_version),
            (f"DELETE {versions}/delete", self._delete_version),
            (f"GET {versions}/search", self._search_versions),
            (f"POST {versions}/set-tag", self._set_tag),
            (f"GET {versions}/get-download-uri", self._download_uri),
            (f"POST {versions}/generate-temporary-credentials", lambda q: {"credentials": {}}),
            (f"POST {versions}/emit-lineage", lambda q: {}),
        ]

    def _check_name(self, name: str) -> None:
        if not re.fullmatch(r"[^./ ]+(\.[^./ ]+){2}", name):
            raise ApiError(
                400,
                "INVALID_PARAMETER_VALUE",
                f"'{name}' is not a valid name. Please specify all three levels of the model in the form "
                "`catalog_name.schema_name.model_name`",
            )
        if (schema := name.rpartition(".")[0]) not in self.schemas:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Schema '{schema}' does not exist.")

    def _create_model(self, q: dict[str, Any]) -> dict[str, Any]:
        self._check_name(q["name"])
        if q["name"] in self.models:
            message = f"Function or Model '{q['name']}' already exists"
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", message)
        now = int(time.time() * 1000)
        self.models[q["name"]] = {
            "name": q["name"],
            "creation_timestamp": now,
            "last_updated_timestamp": now,
            "user_id": USER,
            "description": q.get("description", ""),
            "aliases": [],
            "tags": q.get("tags", []),
        }
        return {"registered_model": self.models[q["name"]]}

    def _model(self, name: str) -> dict[str, Any]:
        self._check_name(name)
        if name not in self.models:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Routine or Model '{name}' does not exist.")
        return self.models[name]

    def _delete_model(self, q: dict[str, Any]) -> dict[str, Any]:
        del self.models[self._model(q["name"])["name"]]
        return {}

    def _version(self, q: dict[str, Any]) -> dict[str, Any]:
        model = self._model(q["name"])
        version = self.versions.get((q["name"], str(q["version"])))
        if not version:
            message = f"Model version '{q['version']}' of '{q['name']}' does not exist."
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", message)
        return version | {"aliases": [alias for alias in model["aliases"] if alias["version"] == version["version"]]}

    def _create_version(self, q: dict[str, Any]) -> dict[str, Any]:
        model = self._model(q["name"])
        number = str(1 + max([int(version) for name, version in self.versions if name == q["name"]], default=0))
        now = int(time.time() * 1000)
        self.versions[q["name"], number] = {
            "name": model["name"],
            "version": number,
            "creation_timestamp": now,
            "last_updated_timestamp": now,
            "user_id": USER,
            "status": "PENDING_REGISTRATION",
            "storage_location": f"s3://catalog/{q['name']}/{number}",
            **{key: q[key] for key in ("source", "run_id", "description", "tags", "model_id") if key in q},
        }
        return {"model_version": self.versions[q["name"], number]}

    def _finalize(self, q: dict[str, Any]) -> dict[str, Any]:
        self._version(q)
        self.versions[q["name"], q["version"]]["status"] = "READY"
        return {"model_version": self._version(q)}

    def _update_version(self, q: dict[str, Any]) -> dict[str, Any]:
        self._version(q)
        self.versions[q["name"], str(q["version"])]["description"] = q.get("description", "")
        return {"model_version": self._version(q)}

    def _delete_version(self, q: dict[str, Any]) -> dict[str, Any]:
        self._version(q)
        del self.versions[q["name"], str(q["version"])]
        return {}

    def _search_versions(self, q: dict[str, Any]) -> dict[str, Any]:
        condition = re.fullmatch(r"\s*(name|run_id)\s*=\s*'([^']*)'\s*", q.get("filter", ""))
        if not condition:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Unsupported filter: {q.get('filter')!r}")
        key, value = condition.groups()
        if key == "name":
            self._check_name(value)
        versions = [version for version in self.versions.values() if version.get(key) == value]
        return {"model_versions": [{k: v for k, v in version.items() if k != "tags"} for version in versions]}

    def _set_tag(self, q: dict[str, Any]) -> dict[str, Any]:
        self._version(q)
        version = self.versions[q["name"], str(q["version"])]
        others = [tag for tag in version.get("tags", []) if tag["key"] != q["key"]]
        version["tags"] = [*others, {"key": q["key"], "value": q["value"]}]
        return {}

    def _download_uri(self, q: dict[str, Any]) -> dict[str, Any]:
        return {"artifact_uri": self._version(q)["storage_location"]}

    def _set_alias(self, q: dict[str, Any]) -> dict[str, Any]:
        self._version(q)
        self._delete_alias(q)
        self.models[q["name"]]["aliases"].append({"alias": q["alias"], "version": str(q["version"])})
        return {}

    def _delete_alias(self, q: dict[str, Any]) -> dict[str, Any]:
        model = self._model(q["name"])
        model["aliases"] = [alias for alias in model["aliases"] if alias["alias"] != q["alias"]]
        return {}

    def _by_alias(self, q: dict[str, Any]) -> dict[str, Any]:
        for alias in self._model(q["name"])["aliases"]:
            if alias["alias"] == q["alias"]:
                return {"model_version": self._version({"name": q["name"], "version": alias["version"]})}
        raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Alias '{q['alias']}' does not exist on '{q['name']}'.")
