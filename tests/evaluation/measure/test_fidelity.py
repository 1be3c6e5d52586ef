"""Distances with known answers: by theory, by another library, and through real graphs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy

from steps.evaluation.measure.fidelity import compare, summary, text_windows, token_figures
from steps.evaluation.measure.logits import OnnxLogits, TorchLogits
from tests.conftest import TINY

TOKENS = [1, 20, 30, 7, 99, 500, 640, 12, 5, 77, 300, 301] * 30


def random_logits(tokens: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (tokens, vocabulary)).astype(np.float32)


def test_figures_are_scipys():
    reference, logits = random_logits(50, 300), random_logits(50, 300, 1)
    targets = np.random.default_rng(2).integers(0, 300, 50)
    found = token_figures(reference, logits, targets)
    p, q = log_softmax(reference.astype(float), axis=1), log_softmax(logits.astype(float), axis=1)
    place = np.arange(50), targets
    np.testing.assert_allclose(found[:, 0], -p[place])
    np.testing.assert_allclose(found[:, 1], -q[place])
    np.testing.assert_allclose(found[:, 2], entropy(np.exp(p), np.exp(q), axis=1), rtol=1e-9)
    assert found[:, 3].tolist() == (reference.argmax(1) == logits.argmax(1)).tolist()


@pytest.mark.parametrize("sigma", [0.01, 0.1])
def test_noise_of_known_size_has_the_divergence_of_theory(sigma):
    """E KL = sigma^2 / 2 (1 - sum p^2) to second order: half the variance of the noise under p."""
    reference = random_logits(400, 2000)
    noise = np.random.default_rng(3).normal(0, sigma, reference.shape)
    found = summary(token_figures(reference, reference + noise, reference.argmax(1)))
    p = np.exp(log_softmax(reference.astype(float), axis=1))
    theory = (sigma**2 / 2 * (1 - (p**2).sum(1))).mean()
    assert found["metrics"]["kl_mean"] == pytest.approx(theory, rel=0.03, abs=4 * found["errors"]["kl_mean"])
    assert abs(found["metrics"]["kl_mean"] - theory) < 0.1 * theory


def test_a_large_vocabulary_comes_in_blocks_and_gives_the_same():
    reference, logits = random_logits(40, 200_000), random_logits(40, 200_000, 1)
    targets = list(range(40))
    whole = token_figures(reference, logits, targets)
    np.testing.assert_array_equal(compare(reference, iter([logits[:7], logits[7:33], logits[33:]]), targets), whole)


def test_streams_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a vocabulary of 9, and the reference one of 10"):
        compare(random_logits(3, 10), iter([random_logits(3, 9)]), [0, 1, 2])
    with pytest.raises(ValueError, match="logits of 2 tokens instead of 3"):
        compare(random_logits(3, 10), iter([random_logits(2, 10)]), [0, 1, 2])


def test_the_summary_by_hand():
    figures = np.array([[1.0, 1.5, 0.1, 1], [2.0, 1.5, 0.3, 0], [0.5, 0.5, 0.0, 1], [1.0, 2.0, 0.2, 1]])
    found = summary(figures)
    metrics, errors = found["metrics"], found["errors"]
    assert metrics["perplexity"] == pytest.approx(np.exp(5.5 / 4))
    assert metrics["ln_perplexity_ratio"] == pytest.approx(0.25)
    assert errors["ln_perplexity_ratio"] == pytest.approx(np.std([0.5, -0.5, 0, 1], ddof=1) / 2)
    assert errors["perplexity"] == pytest.approx(metrics["perplexity"] * np.std([1.5, 1.5, 0.5, 2], ddof=1) / 2)
    assert (metrics["kl_mean"], metrics["kl_median"], metrics["kl_max"]) == pytest.approx((0.15, 0.15, 0.3))
    assert (metrics["same_top"], errors["same_top"]) == pytest.approx((0.75, np.sqrt(0.75 * 0.25 / 3)))
    change = np.exp([-1.5, -1.5, -0.5, -2]) - np.exp([-1.0, -2, -0.5, -1])
    assert metrics["rms_dp"] == pytest.approx(np.sqrt(np.mean(change**2)))
    assert errors["kl_median"] > 0
    assert sum(found["kl_histogram"]["counts"]) == 4


def test_windows_are_spread_over_the_text_and_count_their_second_half():
    windows = text_windows(list(range(10_000)), 1024, 512)
    assert [window.tokens[0] for window in windows] == [0, 3162, 6325, 9488]
    assert {len(window.tokens) for window in windows} == {512}
    assert windows[0].targets == list(range(256, 512))
    assert [len(window.tokens) for window in text_windows(list(range(20)), 1024)] == [20]
    assert text_windows([1], 1024) == []


def joined(model, first: int) -> np.ndarray:
    return np.concatenate(list(model.blocks(TOKENS, first)))


def test_pytorch_is_exact_in_float32_and_keeps_its_weights_narrow():
    import torch
    from transformers import AutoModelForCausalLM

    wide = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = wide(torch.tensor([TOKENS])).logits[0, 150:-1].numpy()
    model = TorchLogits(TINY, exact=True)
    np.testing.assert_allclose(joined(model, 150), expected, atol=2e-4)
    assert {parameter.dtype for parameter in model._model.parameters()} == {torch.bfloat16}
    rough = np.abs(joined(TorchLogits(TINY), 150) - expected).max()
    assert rough > 1e-2, "in its own type it is not exact, or the test shows nothing"


@pytest.mark.parametrize("name", ["genai fp32", "optimum fp32"])
@pytest.mark.parametrize("first", [0, 5, 150])
def test_onnx_graphs_give_pytorchs_logits_from_any_position_on(converted, name, first):
    found = joined(OnnxLogits(converted[name]), first)
    expected = joined(TorchLogits(TINY, exact=True), first)
    assert found.shape == (len(TOKENS) - 1 - first, 768)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_what_decoding_reads_is_the_weights_but_the_embedding(converted):
    whole = sum(file.stat().st_size for file in converted["genai fp32"].glob("model.onnx.data"))
    embedding = 768 * 192 * 4
    assert OnnxLogits(converted["genai fp32"]).read_per_token == pytest.approx(whole - embedding, rel=0.05)
    weights = (TINY / "model.safetensors").stat().st_size
    assert TorchLogits(TINY).read_per_token == pytest.approx(weights - embedding / 2, rel=0.02)


def test_a_graph_with_a_known_change_of_its_logits_has_the_divergence_of_that_change(converted, tmp_path):
    """KL(p || q) with q ~ p exp(delta) is log sum p exp(delta) - sum p delta."""
    delta = np.random.default_rng(0).normal(0, 0.3, 768).astype(np.float32)
    folder = shutil.copytree(converted["genai fp32"], tmp_path / "changed")
    _add_to_logits(folder, delta)
    expected = joined(TorchLogits(TINY, exact=True), 100)
    targets = TOKENS[101:]
    found = compare(expected, OnnxLogits(folder).blocks(TOKENS, 100), targets)
    p = np.exp(log_softmax(expected.astype(float), axis=1))
    theory = np.log((p * np.exp(delta)).sum(1)) - (p * delta).sum(1)
    np.testing.assert_allclose(found[:, 2], theory, atol=2e-5)
    assert summary(found)["metrics"]["kl_mean"] == pytest.approx(theory.mean(), rel=1e-3)


def _add_to_logits(folder: Path, delta: np.ndarray) -> None:
    import onnx

    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["logits_before" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(delta, "delta"))
    model.graph.node.append(onnx.helper.make_node("Add", ["logits_before", "delta"], ["logits"]))
    onnx.save(model, path)
