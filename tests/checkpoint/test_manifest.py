"""manifest.json: it is read as it was written, a damaged or older one is refused, and files are verified against it."""

import json
from typing import Any

import pytest

from steps.checkpoint.describe import build_manifest
from steps.checkpoint.manifest import MANIFEST, AdapterManifest, Manifest, Origin, verify
from steps.common.errors import StepError
from tests.checkout import TINY
from tests.checkpoints.tiny import ORIGIN

pytestmark = pytest.mark.unit

NAME = f"{MANIFEST} of run 1234"
AGAIN = "run fetch_model again$"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The manifest of the shipped checkpoint."""
    return build_manifest(TINY, ORIGIN)


def test_a_manifest_is_read_as_it_was_written(manifest):
    assert Manifest.parse(manifest.to_json(), NAME) == manifest


def test_a_manifest_with_an_adapter_is_read_as_it_was_written_and_names_both(manifest):
    adapter = AdapterManifest(
        origin=Origin(kind="hub", location="me/lora", name="me/lora", commit="a" * 40),
        licence="mit",
        rank=4,
        alpha=8,
        target_modules=("qkv_proj",),
        modules=4,
        parameters=100,
        made_for="tiny-phi3",
        files=manifest.files,
    )
    both = manifest.with_adapter(adapter)
    assert Manifest.parse(both.to_json(), NAME) == both
    assert (both.origin.name, both.adapter) == ("tiny-phi3+lora", adapter)


def test_text_that_is_not_json_is_refused():
    with pytest.raises(StepError, match=f"^{NAME} is not JSON .*: {AGAIN}"):
        Manifest.parse('{"schema_version": 2', NAME)


@pytest.mark.parametrize(
    "content", [{}, [], {"format": 1, "files": []}, {"schema_version": 2}, {"schema_version": "3"}]
)
def test_a_manifest_of_another_version_is_refused(content):
    with pytest.raises(StepError, match=f"^{NAME} has schema_version (None|2|3); .* reads 3: {AGAIN}"):
        Manifest.parse(json.dumps(content), NAME)


FILE = {"path": "config.json", "size": 1, "sha256": "0" * 64}
DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({"files": []}, "files"),
    ({"files": None}, "files"),
    ({"files": [FILE, FILE | {"size": "many"}]}, r"files\.1\.size"),
    ({"files": [{"path": "config.json", "size": 1}]}, r"files\.0\.sha256"),
    ({"licence": 3}, "licence"),
    ({"colour": "blue"}, "colour"),
    ({"origin": {"kind": "floppy", "location": "", "name": "", "commit": ""}}, r"origin\.kind"),
    ({"origin": {"kind": "hub"}}, r"origin\.location"),
    ({"adapter": {}}, r"adapter\.origin"),
]


@pytest.mark.parametrize(("changes", "field"), DAMAGED)
def test_a_damaged_manifest_is_refused_in_one_line_with_file_and_field(manifest, changes, field):
    content = json.loads(manifest.to_json()) | changes
    with pytest.raises(StepError, match=f"^{NAME} is damaged, field {field}: .*: {AGAIN}") as caught:
        Manifest.parse(json.dumps(content), NAME)
    assert "\n" not in str(caught.value)


def test_a_manifest_without_a_field_is_refused(manifest):
    content = json.loads(manifest.to_json())
    del content["architecture"]["dtype"]
    with pytest.raises(StepError, match=rf"^{NAME} is damaged, field architecture\.dtype: .*: {AGAIN}"):
        Manifest.parse(json.dumps(content), NAME)


def test_an_untouched_checkpoint_verifies(folder, manifest):
    counts = []
    verify(folder, manifest.files, counts.append)
    assert sum(counts) == sum(path.stat().st_size for path in TINY.iterdir())


def test_a_flipped_bit_is_detected_and_the_file_named(folder, manifest):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(StepError, match=r"model\.safetensors .* SHA-256"):
        verify(folder, manifest.files)


def test_a_missing_file_is_named(folder, manifest):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StepError, match=r"tokenizer\.json .* missing"):
        verify(folder, manifest.files)


def test_a_truncated_file_is_named_by_its_size(folder, manifest):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StepError, match=r"model\.safetensors .* the manifest says"):
        verify(folder, manifest.files)
