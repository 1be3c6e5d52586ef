"""Logits of real models, over tokens and from any position on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from steps.evaluation.measure.fidelity import KL, figures, score_stream
from steps.evaluation.measure.logits import OnnxLogits, TokenLogits, TorchLogits
from tests.conftest import TINY

pytestmark = pytest.mark.model

TOKENS = [1, 20, 30, 7, 99, 500, 640, 12, 5, 77, 300, 301] * 30


def all_blocks(model: TokenLogits, first: int) -> np.ndarray:
    return np.concatenate(list(model.blocks(TOKENS, first)))


def test_pytorch_is_exact_in_float32_and_keeps_its_weights_narrow():
    import torch
    from transformers import AutoModelForCausalLM

    wide = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = wide(torch.tensor([TOKENS])).logits[0, 150:-1].numpy()
    model = TorchLogits(TINY, exact=True)
    np.testing.assert_allclose(all_blocks(model, 150), expected, atol=2e-4)
    assert {parameter.dtype for parameter in model._model.parameters()} == {torch.bfloat16}
    rough = np.abs(all_blocks(TorchLogits(TINY), 150) - expected).max()
    assert rough > 1e-2, "in its own type it is not exact, or the test shows nothing"


@pytest.mark.parametrize("name", ["genai fp32", "optimum fp32"])
@pytest.mark.parametrize("first", [0, 5, 150])
def test_onnx_graphs_give_pytorchs_logits_from_any_position_on(converted, name, first):
    logits = all_blocks(OnnxLogits(converted[name]), first)
    expected = all_blocks(TorchLogits(TINY, exact=True), first)
    assert logits.shape == (len(TOKENS) - 1 - first, 768)
    np.testing.assert_allclose(logits, expected, atol=2e-3)


def test_decoding_reads_all_weights_but_the_embedding(converted):
    whole = sum(file.stat().st_size for file in converted["genai fp32"].glob("model.onnx.data"))
    embedding = 768 * 192 * 4
    assert OnnxLogits(converted["genai fp32"]).bytes_read_per_token == pytest.approx(whole - embedding, rel=0.05)
    weights = (TINY / "model.safetensors").stat().st_size
    assert TorchLogits(TINY).bytes_read_per_token == pytest.approx(weights - embedding / 2, rel=0.02)


def test_a_graph_with_a_known_change_of_its_logits_has_the_divergence_of_that_change(converted, tmp_path):
    """KL(p || q) with q ~ p exp(delta) is log sum p exp(delta) - sum p delta."""
    delta = np.random.default_rng(0).normal(0, 0.3, 768).astype(np.float32)
    folder = shutil.copytree(converted["genai fp32"], tmp_path / "changed")
    add_to_logits(folder, delta)
    expected = all_blocks(TorchLogits(TINY, exact=True), 100)
    scores = score_stream(expected, OnnxLogits(folder).blocks(TOKENS, 100), TOKENS[101:])
    p = np.exp(log_softmax(expected.astype(float), axis=1))
    theory = np.log((p * np.exp(delta)).sum(1)) - (p * delta).sum(1)
    np.testing.assert_allclose(scores[:, KL], theory, atol=2e-5)
    assert figures(scores)["kl_mean"].value == pytest.approx(theory.mean(), rel=1e-3)


def add_to_logits(folder: Path, delta: np.ndarray) -> None:
    import onnx

    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["logits_before" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(delta, "delta"))
    model.graph.node.append(onnx.helper.make_node("Add", ["logits_before", "delta"], ["logits"]))
    onnx.save(model, path)
