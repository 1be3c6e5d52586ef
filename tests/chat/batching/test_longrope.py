"""LongRoPE, where onnxruntime-genai's own generator is wrong: answers on both sides of the switch, and across it."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from steps.chat.api.requests import Sampling
from steps.chat.batching.engine import Engine
from steps.chat.runtime.torch_session import TorchSession
from steps.chat.settings import Settings
from steps.checkpoint.longrope import longrope_switch
from steps.conversion.convert import convert
from steps.conversion.options import parse_choice
from tests.checkpoints.geometries import GEOMETRIES, ORIGINAL_LENGTH

pytestmark = pytest.mark.model
LONGROPE = [name for name, fields in GEOMETRIES.items() if fields["max_position_embeddings"] > ORIGINAL_LENGTH]
CASES = [*product(["genai"], LONGROPE), ("optimum", LONGROPE[0]), ("none", LONGROPE[0])]


@pytest.fixture(scope="module")
def long_models(checkpoints, tmp_path_factory):
    """A function that returns the engine and the PyTorch model of an exporter and a geometry.

    The exporter "none" stands for an engine over PyTorch.
    """
    loaded = {}

    def make_engine(exporter: str, geometry: str) -> Engine:
        checkpoint, out = checkpoints[geometry], tmp_path_factory.mktemp("onnx") / "model"
        if exporter == "none":
            model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
            settings = Settings(longrope_switch=longrope_switch(checkpoint))
            return Engine(checkpoint, settings, lambda settings, rows: TorchSession(model, 0, "cpu", rows))
        conversion = convert(checkpoint, out, parse_choice(exporter, "fp32", "", "cpu"))
        return Engine(out, Settings(longrope_switch=conversion.longrope_switch))

    def load(exporter: str, geometry: str):
        if (exporter, geometry) not in loaded:
            reference = AutoModelForCausalLM.from_pretrained(checkpoints[geometry], dtype=torch.float32).eval()
            loaded[exporter, geometry] = make_engine(exporter, geometry), reference
        return loaded[exporter, geometry]

    return load


def greedy(reference, prompt: list[int], count: int) -> list[int]:
    """Return the first tokens of PyTorch's greedy answer."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        answer = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return answer[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("exporter", "geometry"), CASES)
def test_answers_are_pytorchs_on_both_sides_of_the_switch_and_across_it(long_models, exporter, geometry):
    """Ask all at once: a step has rows on both sides. Then ask again: the prompt cache is used."""
    engine, reference = long_models(exporter, geometry)
    tokens = np.random.default_rng(0).integers(10, 700, ORIGINAL_LENGTH + 200).tolist()
    prompts = [tokens[:count] for count in (50, ORIGINAL_LENGTH - 4, ORIGINAL_LENGTH + 1, ORIGINAL_LENGTH + 100)]
    expected = [greedy(reference, prompt, 10) for prompt in prompts]
    for _ in range(2):
        generations = [engine.submit(prompt, Sampling(10)) for prompt in prompts]
        for generation in generations:
            generation.wait()
        assert [generation.generated for generation in generations] == expected
