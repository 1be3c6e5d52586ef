"""The writer of safetensors files in tests writes what the reader of the checkpoints reads, byte by byte."""

import pytest

from steps.checkpoint.headers import read_weights
from tests.checkout import TINY
from tests.checkpoints.weights import read_tensors, write_shards, write_tensors

pytestmark = pytest.mark.unit


def test_a_file_is_read_as_it_was_written(tmp_path):
    tensors = read_tensors(TINY / "model.safetensors")
    write_tensors(tmp_path / "model.safetensors", tensors)
    assert read_tensors(tmp_path / "model.safetensors") == tensors
    assert read_weights(tmp_path).shapes == read_weights(TINY).shapes


def test_shards_are_read_as_one_checkpoint(tmp_path):
    write_shards(tmp_path, read_tensors(TINY / "model.safetensors"), 3)
    assert read_weights(tmp_path).shapes == read_weights(TINY).shapes
