"""The tracking server of the pipeline: PostgreSQL and S3 behind it, a password in front of it."""

import json
from typing import Any

import pytest
import requests

from tests.conftest import Backend
from tests.fakes import servers

pytestmark = pytest.mark.e2e


def bucket_client(backend: Backend) -> Any:
    """Return boto3's client of the server's bucket."""
    import boto3

    env = backend.bucket_env
    session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    return session.client("s3", endpoint_url=env["MLFLOW_S3_ENDPOINT_URL"])


def bucket_keys(backend: Backend) -> list[str]:
    """Return the keys of all objects in the server's bucket."""
    pages = bucket_client(backend).get_paginator("list_objects_v2").paginate(Bucket="phi")
    return [entry["Key"] for page in pages for entry in page["Contents"]]


def test_the_store_behind_the_server_is_postgresql(backend, parent, children):
    if not backend.database.startswith("postgresql:"):
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql, and run again")
    import psycopg

    with psycopg.connect(backend.database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")
        finished = {row[0] for row in cursor.fetchall()}
    assert {parent.info.run_id, *(run.info.run_id for run in children.values())} <= finished


def test_artifacts_go_through_the_server_to_the_bucket(backend, children):
    keys = bucket_keys(backend)
    assert f"store/0/{children['fetch_model'].info.run_id}/artifacts/checkpoint/manifest.json" in keys
    assert children["fetch_model"].info.artifact_uri.startswith("mlflow-artifacts:/")
    assert [key for key in keys if key.startswith("store/0/models/") and key.endswith("model.safetensors")]


def test_the_server_wants_a_password(backend, cold):
    refused = requests.get(f"{backend.url}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=10)
    assert refused.status_code == 401


def test_the_password_is_in_no_output_no_run_and_no_artifact(backend, project, cold):
    assert servers.PASSWORD not in cold.out + cold.err
    for run in project.runs():
        assert servers.PASSWORD not in json.dumps([run.data.tags, run.data.params])
    bucket = bucket_client(backend)
    for key in bucket_keys(backend):
        assert servers.PASSWORD.encode() not in bucket.get_object(Bucket="phi", Key=key)["Body"].read(), key


@pytest.mark.parametrize(("user", "password"), [("", ""), (servers.ADMIN, "planted-wrong-password")])
def test_a_step_without_the_password_says_so_in_a_line(project, cold, user, password):
    env = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    result = project.run_module("fetch_model", env, source="params/tiny-phi3")
    assert result.code == 1
    (line,) = result.error_lines()
    assert line.startswith("fetch_model: the tracking server")
    assert "rejected the credentials" in line and "MLFLOW_TRACKING_USERNAME" in line
    assert "planted-wrong-password" not in result.out + result.err
    assert project.runs("attributes.status = 'RUNNING'") == []


def test_a_registered_model_of_another_user_is_refused_in_a_line(backend, project, children):
    from mlflow.server.auth.client import AuthServiceClient

    AuthServiceClient(backend.url).create_user("guest", "planted-guest-password")
    env = {
        "MLFLOW_TRACKING_USERNAME": "guest",
        "MLFLOW_TRACKING_PASSWORD": "planted-guest-password",
        "MLFLOW_EXPERIMENT_NAME": "guests",
    }
    onnx = children["convert_onnx"].info.run_id
    result = project.run_module("wrap_custom", env, onnx_run=onnx, registered_model="tiny-phi3")
    assert result.code == 1
    assert "registered_model is 'tiny-phi3', and the registry rejected it" in result.err
