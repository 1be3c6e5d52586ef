"""What the manifest says of a checkpoint, and what is refused."""

import json
import shutil

import pytest

from steps.checkpoint.manifest import MANIFEST, Architecture, Manifest, build_manifest, verify
from steps.checkpoint.source import parse_source
from steps.common.errors import StepError
from steps.common.hashing import total_size
from tests.checkpoints.tiny import ORIGIN
from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.unit
NAME = f"{MANIFEST} of run 1234"


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped checkpoint to spoil."""
    return shutil.copytree(TINY, tmp_path / "checkpoint")


def edit_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_facts_of_the_shipped_checkpoint():
    manifest = build_manifest(TINY, ORIGIN)
    assert manifest.architecture == Architecture(
        architecture="Phi3ForCausalLM",
        parameters=1_697_472,
        dtype="bfloat16",
        context_length=2048,
        layers=4,
        hidden_size=192,
        vocabulary=768,
        attention_heads=6,
        kv_heads=3,
        rope="default",
        partial_rotary_factor=1.0,
        tied_embeddings=False,
    )
    assert {file.path for file in manifest.files} == {path.name for path in TINY.iterdir()}
    assert total_size(manifest.files) == sum(path.stat().st_size for path in TINY.iterdir())


def test_the_hash_agrees_with_an_independent_one(tmp_path):
    import subprocess

    stated = {file.path: file.sha256 for file in build_manifest(TINY, ORIGIN).files}
    printed = subprocess.run(["sha256sum", "model.safetensors"], cwd=TINY, capture_output=True, text=True, check=True)
    assert stated["model.safetensors"] == printed.stdout.split()[0]


def test_longrope_is_named(folder):
    edit_config(folder, rope_scaling={"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]})
    assert build_manifest(folder, ORIGIN).architecture.rope == "longrope"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# A model\nlicense: gpl", "mit"),
        ("# A model\nlicense: gpl", "not stated"),
    ],
)
def test_the_licence_is_the_one_of_the_model_cards_header(folder, card, licence):
    (folder / "README.md").write_text(card)
    assert build_manifest(folder, ORIGIN).licence == licence


def test_an_untouched_checkpoint_verifies(folder):
    verify(folder, build_manifest(folder, ORIGIN).files)


def test_a_flipped_bit_is_found_and_the_file_named(folder):
    manifest = build_manifest(folder, ORIGIN)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(StepError, match=r"model\.safetensors .* SHA-256"):
        verify(folder, manifest.files)


def test_a_missing_file_is_named(folder):
    manifest = build_manifest(folder, ORIGIN)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StepError, match=r"tokenizer\.json .* missing"):
        verify(folder, manifest.files)


def test_a_truncated_file_is_named_by_its_size(folder):
    manifest = build_manifest(folder, ORIGIN)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StepError, match=r"model\.safetensors .* the manifest says"):
        verify(folder, manifest.files)
    with pytest.raises(StepError, match=r"model\.safetensors has \d+ bytes and its header says"):
        build_manifest(folder, ORIGIN)


@pytest.fixture(scope="module")
def document() -> dict:
    """The content of the shipped checkpoint's manifest.json, to damage."""
    return json.loads(build_manifest(TINY, ORIGIN).to_json())


def test_a_manifest_is_read_as_it_was_written():
    manifest = build_manifest(TINY, ORIGIN)
    assert Manifest.parse(manifest.to_json(), NAME) == manifest


def test_a_manifest_that_is_not_json_is_refused():
    with pytest.raises(StepError, match=f"^{NAME} is not JSON .*: run fetch_model again$"):
        Manifest.parse('{"schema_version": 2', NAME)


@pytest.mark.parametrize("content", [{}, [], {"format": 1, "files": []}, {"schema_version": 1}])
def test_a_manifest_of_another_version_is_refused(content):
    with pytest.raises(StepError, match=f"^{NAME} has schema_version (None|1); .* reads 2: run fetch_model again$"):
        Manifest.parse(json.dumps(content), NAME)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"files": []}, "files"),
        ({"files": [{"path": "config.json", "size": "many", "sha256": ""}]}, "files.0.size"),
        ({"files": None}, "files"),
        ({"colour": "blue"}, "colour"),
        ({"origin": {"kind": "floppy", "location": "", "name": "", "commit": ""}}, "origin.kind"),
        ({"origin": {"kind": "hub"}}, "origin.location"),
    ],
)
def test_a_damaged_manifest_is_refused_with_file_and_field(document, changes, field):
    with pytest.raises(StepError, match=f"^{NAME} is damaged, field {field}: .*: run fetch_model again$") as caught:
        Manifest.parse(json.dumps(document | changes), NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 5}, "num_hidden_layers 5, but the weights hold 4"),
        ({"num_key_value_heads": 6}, "asks for model.layers.0.self_attn.qkv_proj.weight of 576 x 192.* have 384 x 192"),
        ({"intermediate_size": 400}, "asks for model.layers.0.mlp.gate_up_proj.weight of 800 x 192"),
        ({"hidden_size": 200}, "hidden_size 200, but model.embed_tokens.weight is 768 x 192"),
        ({"model_type": "phi3small", "architectures": ["Phi3SmallForCausalLM"]}, "architecture Phi3SmallForCausalLM"),
        ({"architectures": ["Phi3ForSequenceClassification"]}, "not a causal language model"),
    ],
)
def test_a_config_that_contradicts_the_weights_or_is_foreign_is_refused(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(StepError, match=message):
        build_manifest(folder, ORIGIN)


def test_pickled_weights_are_refused_by_name(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(StepError, match=r"pytorch_model\.bin is pickled"):
        build_manifest(folder, ORIGIN)


def test_a_missing_shard_is_named(folder):
    index = {
        "weight_map": {"model.norm.weight": "model.safetensors", "lm_head.bias": "model-00002-of-00002.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(StepError, match=r"model-00002-of-00002\.safetensors, .* is missing"):
        build_manifest(folder, ORIGIN)


def test_weights_that_are_not_safetensors_are_refused_by_name(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 4000)
    with pytest.raises(StepError, match=r"model\.safetensors is not a safetensors file"):
        build_manifest(folder, ORIGIN)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("microsoft/Phi-3-mini-4k-instruct", "hub", "microsoft/Phi-3-mini-4k-instruct"),
        ("params/tiny-phi3", "folder", "tiny-phi3"),
        ("runs:/0123/checkpoint", "artifact", "checkpoint"),
        ("s3://bucket/models/mine", "artifact", "mine"),
        ("models:/phi/3", "artifact", "phi"),
        ("models:/phi@champion", "artifact", "phi"),
        ("params/tiny-phi3/.", "folder", "tiny-phi3"),
    ],
)
def test_the_kinds_of_source(text, kind, name):
    source = parse_source(text, ROOT)
    assert (source.kind, source.name) == (kind, name)


@pytest.mark.parametrize("text", ["", "no-such-folder", "./no/such/folder", "a/b/c", "/nowhere"])
def test_what_is_no_source_is_refused(text):
    with pytest.raises(StepError, match="expected a hub repository"):
        parse_source(text, ROOT)
