"""The kinds of source that the parameters `source` and `adapter` can name."""

import pytest

from steps.checkpoint.manifest import Origin
from steps.checkpoint.source import parse_source
from steps.common.errors import StepError
from tests.checkout import ROOT

pytestmark = pytest.mark.unit


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
def test_a_value_that_names_no_source_is_refused(text):
    with pytest.raises(StepError, match="expected a hub repository"):
        parse_source(text, ROOT)


@pytest.mark.parametrize(
    ("text", "kind", "revision", "name"),
    [
        ("somebody/lora", "hub", "", "somebody/lora"),
        ("somebody/lora@v1", "hub", "v1", "somebody/lora"),
        ("params/tiny-phi3", "folder", "", "tiny-phi3"),
        ("models:/lora@champion", "artifact", "", "lora"),
        ("s3://bucket/lora", "artifact", "", "lora"),
    ],
)
def test_the_kinds_of_adapter(text, kind, revision, name):
    source = parse_source(text, ROOT, "adapter")
    assert (source.kind, source.revision, source.name) == (kind, revision, name)
    assert source.is_mutable == text.startswith("s3:")


@pytest.mark.parametrize("text", ["no-such-folder", "somebody/lora@", "@v1", "a/b/c@v1"])
def test_a_value_that_names_no_adapter_is_refused(text):
    with pytest.raises(StepError, match=r"adapter is .* owner/name@revision"):
        parse_source(text, ROOT, "adapter")


def test_the_origin_has_the_commit_of_a_hub_repository_only():
    hub, folder = parse_source("somebody/phi", ROOT), parse_source("params/tiny-phi3", ROOT)
    assert hub.origin("a" * 40) == Origin(kind="hub", location="somebody/phi", name="somebody/phi", commit="a" * 40)
    assert folder.origin("") == Origin(kind="folder", location="params/tiny-phi3", name="tiny-phi3", commit="")
