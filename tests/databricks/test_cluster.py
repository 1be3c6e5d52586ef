"""Cluster files, and what of a submission is logged."""

import re

import pytest

from steps.common.errors import StepError
from steps.databricks.cluster import read_cluster, without_environment

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected"),
        ('{"cluster_spec": {}}', "'cluster_spec' is not what the Jobs API takes"),
        ('{"new_cluster": {"spark_version": "15.4.x-scala2.12"}}', "new_cluster has no node_type_id"),
        ('{"new_clusters": {}}', "did you mean 'new_cluster'"),
        ('{"new_cluster": {}, "existing_cluster_id": "x"}', 'or {"existing_cluster_id": "..."}'),
    ],
)
def test_a_wrong_cluster_file_is_refused(tmp_path, content, part):
    file = tmp_path / "cluster.json"
    file.write_text(content)
    with pytest.raises(StepError, match=re.escape(part)):
        read_cluster(file, "mine.json")


def test_values_of_the_clusters_environment_are_hidden_and_references_to_secrets_are_not():
    environment = {"HF_TOKEN": "planted-token", "OTHER": "{{secrets/scope/key}}"}
    body = {"tasks": [{"new_cluster": {"spark_env_vars": environment, "num_workers": 0}}]}
    (task,) = without_environment(body)["tasks"]
    assert task["new_cluster"] == {
        "spark_env_vars": {"HF_TOKEN": "<not logged>", "OTHER": "{{secrets/scope/key}}"},
        "num_workers": 0,
    }
