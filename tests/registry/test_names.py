"""Names of registered models."""

import re

import pytest

from steps.common.errors import StepError
from steps.registry.names import model_name, with_full_name

pytestmark = pytest.mark.unit


@pytest.fixture
def unity_catalog(monkeypatch):
    """Unity Catalog as the model registry, and no default schema."""
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks-uc")
    monkeypatch.delenv("PHI_MLFLOW_UC_SCHEMA", raising=False)


@pytest.mark.parametrize("name", ["me/phi", "phi:1", " phi", "phi "])
def test_a_name_that_no_registry_takes_is_refused(name):
    with pytest.raises(StepError, match=re.escape(f"registered_model is {name!r}; expected a name without '/' or ':'")):
        with_full_name({"registered_model": name})


def test_a_registry_without_schemas_takes_the_name_as_it_is():
    assert with_full_name({"registered_model": "phi"}) == {"registered_model": "phi"}


def test_unity_catalog_gets_the_default_schema_for_a_name_without_a_dot(unity_catalog, monkeypatch):
    monkeypatch.setenv("PHI_MLFLOW_UC_SCHEMA", "main.default")
    assert with_full_name({"registered_model": "phi", "task": "x"}) == {
        "registered_model": "main.default.phi",
        "task": "x",
    }
    assert with_full_name({"registered_model": "other.models.phi"}) == {"registered_model": "other.models.phi"}
    assert with_full_name({"registered_model": ""}) == {"registered_model": ""}


@pytest.mark.parametrize("name", ["phi", "default.phi", "a.b.c.d"])
def test_unity_catalog_needs_three_levels(unity_catalog, name):
    with pytest.raises(StepError, match=f"registered_model is '{name}'; Unity Catalog expects catalog.schema.model"):
        with_full_name({"registered_model": name})


def test_a_logged_models_name_has_only_characters_that_mlflow_allows():
    assert model_name("owner/Phi-3.5 mini", "onnx-genai:int4") == "Phi-3-5-mini-onnx-genai-int4"
