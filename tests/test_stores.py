"""Artifacts in S3 without a proxy: the steps write and read the bucket themselves, as their environment says."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.checkout import TINY, Project, checkout
from tests.fakes.servers import s3, tracking_server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """boto3's client of a bucket on loopback that holds the shipped checkpoint, with the environment set for it."""
    import boto3

    with s3() as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        for file in TINY.iterdir():
            client.upload_file(str(file), "phi", f"checkpoints/tiny-phi3/{file.name}")
        yield client


@pytest.fixture(scope="module")
def project(tmp_path_factory, bucket) -> Iterator[Project]:
    """A checkout against a tracking server that returns the addresses of the bucket and proxies no artifacts."""
    folder = tmp_path_factory.mktemp("tracking")
    with tracking_server(folder, "--no-serve-artifacts", "--default-artifact-root", "s3://phi/artifacts") as url:
        yield Project(checkout(tmp_path_factory.mktemp("checkout")), url, tmp_path_factory.mktemp("home"))


def test_steps_read_and_write_s3(project, bucket):
    source = project.run_module("fetch_model", source="s3://phi/checkpoints/tiny-phi3")
    assert source.code == 0, source.err
    checkpoint = project.latest("fetch_model").info.run_id
    wrapped = project.run_module("wrap_transformer", checkpoint_run=checkpoint)
    assert wrapped.code == 0, wrapped.err
    keys = [entry["Key"] for entry in bucket.list_objects_v2(Bucket="phi", Prefix="artifacts")["Contents"]]
    assert f"artifacts/0/{checkpoint}/artifacts/checkpoint/manifest.json" in keys
    assert [key for key in keys if key.endswith("model.safetensors")]
    for key in keys:
        assert b"planted-aws-secret" not in bucket.get_object(Bucket="phi", Key=key)["Body"].read()


def test_a_step_with_artifacts_in_s3_is_reused(project):
    first = project.run_module("main", steps="fetch_model")
    assert first.code == 0, first.err
    assert re.match(r"fetch_model +reused  ", project.run_module("main", steps="fetch_model").out)


def test_a_bucket_that_does_not_exist_is_one_line_and_a_closed_run(project):
    result = project.run_module("fetch_model", source="s3://nowhere/tiny-phi3")
    assert result.code == 1
    (line,) = [line for line in result.error_lines() if line.startswith("fetch_model: ")]
    assert "source s3://nowhere/tiny-phi3 cannot be read" in line
    assert project.runs("attributes.status = 'RUNNING'") == []
