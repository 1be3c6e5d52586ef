"""Fetching from a hub: the real client against a hub on loopback, in a process of its own for each test."""

import json
import os
import subprocess
import sys

import pytest

from tests.checkout import ROOT, TINY
from tests.fakes.hub import Repo

pytestmark = pytest.mark.e2e

COMMIT, OLDER = "a" * 40, "b" * 40
NAME = "somebody/tiny-phi3"
FILES = {path.name: path.read_bytes() for path in TINY.iterdir()} | {"README.md": b"---\nlicense: mit\n---\n# Tiny\n"}

SCRIPT = """
import json, sys
from steps.checkpoint.hub import fetch, resolve_commit
from steps.common.errors import StepError
try:
    commit = resolve_commit(sys.argv[1], sys.argv[2])
    fetched = fetch(sys.argv[1], commit)
    print(json.dumps({"commit": commit, "files": sorted(p.name for p in fetched.folder.iterdir()),
                      "stated": fetched.stated}))
except StepError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def fetch(hub, tmp_path):
    """fetch(repo, revision, **environment) -> what the script printed."""
    hub.repos[NAME] = Repo(dict(FILES), {"main": COMMIT, "v1": OLDER})

    def call(repo: str = NAME, revision: str = "main", **env: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, repo, revision],
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")} | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return call


def test_a_branch_is_resolved_and_its_files_are_fetched(fetch):
    got = fetch()
    assert got["commit"] == COMMIT
    assert got["files"] == sorted(FILES)
    assert list(got["stated"]) == ["model.safetensors"]


def test_a_tag_is_resolved_to_its_own_commit(fetch):
    assert fetch(revision="v1")["commit"] == OLDER


def test_python_and_pickles_are_not_fetched(fetch, hub):
    hub.repos[NAME].files |= {"modeling_phi3.py": b"evil()", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"x"}
    assert fetch()["files"] == sorted(FILES)
    assert not [path for _, path, _ in hub.requests if path.endswith((".py", ".bin", ".onnx"))]


def test_a_second_fetch_downloads_nothing(fetch, hub):
    fetch()
    hub.requests.clear()
    fetch()
    assert not [request for request in hub.requests if request[0] == "GET" and "/resolve/" in request[1]]


def test_a_cut_connection_resumes_where_it_stopped(fetch, hub):
    hub.repos[NAME].files["model.safetensors"] = bytes(30 << 20)  # the client keeps what it has by 10 MiB
    hub.cut_after = 25 << 20
    assert fetch()["files"] == sorted(FILES)
    ranges = [span for method, path, span in hub.requests if method == "GET" and path.endswith("safetensors")]
    assert ranges == [None, f"bytes={20 << 20}-"]


def test_a_hub_that_answers_503_is_asked_again(fetch, hub):
    hub.failures = [503, 503]
    assert fetch()["commit"] == COMMIT


def test_a_hub_that_keeps_answering_500_is_named(fetch, hub):
    hub.failures = [500] * 50
    assert "the hub answered 500" in fetch()["error"]


def test_pickled_weights_are_refused_by_name_and_not_downloaded(fetch, hub):
    del hub.repos[NAME].files["model.safetensors"]
    hub.repos[NAME].files["pytorch_model.bin"] = b"pickle"
    assert "pytorch_model.bin is pickled" in fetch()["error"]
    assert not [path for _, path, _ in hub.requests if path.endswith(".bin")]


def test_remote_code_is_refused_by_name_before_the_weights_are_downloaded(fetch, hub):
    config = json.loads(FILES["config.json"]) | {
        "model_type": "phi3small",
        "architectures": ["Phi3SmallForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_phi3_small.Phi3SmallForCausalLM"},
    }
    hub.repos[NAME].files["config.json"] = json.dumps(config).encode()
    assert "the code in modeling_phi3_small.py is never run" in fetch()["error"]
    assert not [path for _, path, _ in hub.requests if path.endswith(".safetensors")]


def test_a_missing_repository_is_named(fetch):
    assert "nobody/nothing: the hub knows no such repository" in fetch(repo="nobody/nothing")["error"]


def test_a_wrong_revision_is_named(fetch):
    assert "'v9': no such branch, tag or commit" in fetch(revision="v9")["error"]


def test_a_gated_repository_needs_the_token_of_the_environment(fetch, hub):
    hub.repos[NAME].gated = True
    assert "is gated: accept its licence" in fetch()["error"]
    assert "is gated" in fetch(HF_TOKEN="wrong-token")["error"]
    assert fetch(HF_TOKEN="right-token")["commit"] == COMMIT


def test_a_repository_larger_than_the_disk_is_refused_before_the_download(fetch, hub):
    hub.repos[NAME].declared_sizes["model.safetensors"] = 10**18
    error = fetch()["error"]
    assert "needs 1000000.0 TB" in error
    assert "free" in error
    assert not [path for _, path, _ in hub.requests if path.endswith(".safetensors")]


def test_without_a_connection_the_cache_serves(fetch):
    fetch()
    got = fetch(HF_ENDPOINT="http://127.0.0.1:9")
    assert got["commit"] == COMMIT
    assert got["files"] == sorted(FILES)
    assert fetch(HF_HUB_OFFLINE="1")["commit"] == COMMIT


def test_without_a_connection_and_a_cache_the_line_says_what_to_do(fetch):
    error = fetch(HF_ENDPOINT="http://127.0.0.1:9")["error"]
    assert "cannot be reached" in error
    assert "local folder" in error
