"""Every Phi geometry against PyTorch, by both exporters, in the runtime that serves it."""

import json

import numpy as np
import onnxruntime_genai as og
import pytest
import torch
from transformers import AutoModelForCausalLM

from steps.common.errors import StepError
from steps.conversion.convert import convert
from steps.conversion.mapped_model import float32_logits, open_model
from steps.conversion.options import parse_choice
from steps.conversion.runtime_limits import known_limits
from tests.checkout import TINY
from tests.checkpoints.geometries import GEOMETRIES, LONGROPE, ORIGINAL_LENGTH, make_checkpoint

pytestmark = pytest.mark.model

TOLERANCE = 1e-4
LENGTHS = {name: (1, 7, 64, *((4096, 4097, 4200) if name in LONGROPE else (2000,))) for name in GEOMETRIES}
EXPORTERS = ("genai", "optimum")
_LOGITS: dict[tuple, np.ndarray] = {}


@pytest.fixture(scope="module")
def models(checkpoints, tmp_path_factory):
    """Return the float32 model of an exporter and a geometry, in the runtime and in PyTorch. Each is loaded once."""
    loaded = {}
    _LOGITS.clear()

    def load(exporter: str, geometry: str):
        if (exporter, geometry) not in loaded:
            out = tmp_path_factory.mktemp("onnx") / "model"
            convert(checkpoints[geometry], out, parse_choice(exporter, "fp32", "", "cpu"))
            reference = AutoModelForCausalLM.from_pretrained(checkpoints[geometry], dtype=torch.float32).eval()
            loaded[exporter, geometry] = og.Model(str(out)), reference
        return loaded[exporter, geometry]

    return load


def tokens(count: int) -> list[int]:
    """Return tokens of a text without meaning."""
    return np.random.default_rng(0).integers(10, 1000, count).tolist()


def expected(reference, ids: list[int]) -> np.ndarray:
    """Return PyTorch's logits after the last token, without a KV cache. Each text is computed once."""
    key = (reference.config.name_or_path, *ids)
    if key not in _LOGITS:
        with torch.no_grad():
            output = reference(torch.tensor([ids]), use_cache=False, logits_to_keep=1)
        _LOGITS[key] = output.logits[0, -1].numpy()
    return _LOGITS[key]


def generator(model: og.Model, length: int) -> og.Generator:
    """Return a greedy generator for texts of up to `length` tokens."""
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=length, do_sample=False)
    return og.Generator(model, params)


def error(model: og.Model, reference, *pieces: list[int]) -> float:
    """Return the largest difference from PyTorch's logits after a text that the runtime reads in pieces."""
    ids = [token for piece in pieces for token in piece]
    run = generator(model, len(ids))
    for piece in pieces:
        run.append_tokens(piece)
    return float(np.abs(run.get_logits().reshape(-1) - expected(reference, ids)).max())


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_logits_equal_pytorchs(models, exporter, geometry):
    model, reference = models(exporter, geometry)
    errors = {count: error(model, reference, tokens(count)) for count in LENGTHS[geometry]}
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("geometry", LONGROPE)
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_generation_crosses_the_switch(models, exporter, geometry):
    model, reference = models(exporter, geometry)
    prompt, new = tokens(ORIGINAL_LENGTH - 4), 10
    run = generator(model, len(prompt) + new)
    run.append_tokens(prompt)
    for _ in range(new):
        run.generate_next_token()
    ids = torch.tensor([prompt])
    with torch.no_grad():
        answer = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, eos_token_id=None
        )
    assert list(run.get_sequence(0)) == answer[0].tolist()


def test_a_cache_that_crosses_the_switch_is_wrong_as_the_limits_say(models):
    """This test fails when the runtime is mended. Then steps/conversion/runtime_limits.py can say less."""
    model, reference = models("genai", LONGROPE[0])
    text = tokens(ORIGINAL_LENGTH + 20)
    assert error(model, reference, text[: ORIGINAL_LENGTH - 10], text[ORIGINAL_LENGTH - 10 :]) > 0.1
    assert error(model, reference, text[:ORIGINAL_LENGTH], text[ORIGINAL_LENGTH:]) > 0.1
    assert error(model, reference, text[: ORIGINAL_LENGTH + 10], text[ORIGINAL_LENGTH + 10 :]) <= TOLERANCE
    run = generator(model, len(text))
    run.append_tokens(text)
    run.rewind_to(100)
    run.append_tokens(text[100:110])
    assert np.abs(run.get_logits().reshape(-1) - expected(reference, text[:110])).max() > 0.1
    run.rewind_to(0)
    run.append_tokens(text[:110])
    assert np.abs(run.get_logits().reshape(-1) - expected(reference, text[:110])).max() <= TOLERANCE


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_longrope_models_have_known_limits_and_others_have_none(checkpoints, geometry):
    limits = known_limits(checkpoints[geometry])
    assert len(limits) == (geometry in LONGROPE)
    assert all(f"switches at {ORIGINAL_LENGTH} tokens" in limit for limit in limits)


def test_generation_across_a_switch_at_another_length_is_wrong(tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoint", "phi-3-mini-128k", TINY, original_max_position_embeddings=1024)
    limits = convert(folder, tmp_path / "onnx", parse_choice("genai", "fp32", "", "cpu")).limits
    assert len(limits) == 2 and "Generation across 1024 tokens is wrong" in limits[1]
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    run = generator(og.Model(str(tmp_path / "onnx")), 1100)
    run.append_tokens(tokens(1020))
    for _ in range(8):
        run.generate_next_token()
    text = [int(token) for token in run.get_sequence(0)]
    right = [int(expected(reference, text[:end]).argmax()) == text[end] for end in range(1020, 1028)]
    assert all(right[:5]) and not all(right), "the text up to the switch is right, and after it is not"


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("int4", ""),
        ("int4", "is_symmetric=false"),
        ("int4", "matmul_mixed_precision=last_matmul:int8"),
        ("int4", "algo_config=k_quant_last"),
        ("int4", "use_qdq=true"),
    ]
    + [("int8", ""), ("int8", "is_symmetric=false")],
)
def test_a_tied_head_is_right_with_every_option(checkpoints, precision, options, tmp_path):
    convert(checkpoints["phi-4-mini"], tmp_path / "onnx", parse_choice("genai", precision, options, "cpu"))
    reference = open_model(checkpoints["phi-4-mini"])
    run = generator(og.Model(str(tmp_path / "onnx")), 16)
    run.append_tokens(tokens(7))
    logits = float32_logits(reference, tokens(7))[-1]
    relative = np.sqrt(((run.get_logits().reshape(-1) - logits) ** 2).mean()) / logits.std()
    assert relative < (0.15 if precision == "int8" else 0.9), "rounding of random weights gives less; wrong wiring 1.4"


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_mapped_weights_give_pytorchs_logits(checkpoints, geometry):
    mapped = float32_logits(open_model(checkpoints[geometry]), tokens(64))
    reference = AutoModelForCausalLM.from_pretrained(checkpoints[geometry], dtype=torch.float32).eval()
    with torch.no_grad():
        assert np.abs(mapped - reference(torch.tensor([tokens(64)])).logits[0].numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_key_value_heads": 4}, r"describes model\.layers\.0\.self_attn\.qkv_proj\.weight of 1024 x 512"),
        ({"intermediate_size": 999}, r"describes model\.layers\.0\.mlp\.gate_up_proj\.weight of 1998 x 512"),
        ({"num_hidden_layers": 3}, r"describes model\.layers\.2\.[a-z_.]+, which the weights lack"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused_before_any_work(tmp_path, change, message):
    folder = make_checkpoint(tmp_path / "checkpoint", "phi-3-medium", TINY)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(StepError, match=message):
        convert(folder, tmp_path / "onnx", parse_choice("genai", "int4", "", "cpu"))
    assert not (tmp_path / "onnx").exists()
