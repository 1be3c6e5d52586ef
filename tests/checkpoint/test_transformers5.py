"""Checkpoints that transformers 5 saved give its own logits and tokens here. transformers 5 itself saves them."""

import json
from pathlib import Path

import numpy as np
import pytest

from steps.checkpoint.canonical import canonical_form
from steps.checkpoint.describe import build_manifest
from tests.checkout import TINY
from tests.checkpoints.phi_tokenizers import TEMPLATES
from tests.checkpoints.tiny import ORIGIN

pytestmark = pytest.mark.model
HERE = Path(__file__).parent
MODELS = ["tiny", "longrope"]
TOKENIZERS = [kind.replace(" ", "-") for kind in TEMPLATES]
LARGEST_DIFFERENCE = 1e-4


@pytest.fixture(scope="session")
def saved(saved_by_transformers5) -> Path:
    """A folder with the checkpoints of MODELS and the tokenizers of TOKENIZERS."""
    return saved_by_transformers5


@pytest.fixture
def canonical(saved, tmp_path):
    """canonical(name): the canonical form of one of the checkpoints."""

    def make(name: str) -> Path:
        canonical_form(saved / name).write(saved / name, tmp_path / name)
        return tmp_path / name

    return make


def logits_here(folder: Path) -> np.ndarray:
    """Return float32 logits [50, vocabulary] of the tokens 10 to 59, by the transformers of this environment."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(10, 60)[None]).logits.numpy()[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_canonical_form_has_transformers_5s_logits(saved, canonical, name):
    difference = np.abs(logits_here(canonical(name)) - np.load(saved / name / "logits.npy")).max()
    assert difference < LARGEST_DIFFERENCE


def test_the_logits_differ_without_the_translation(saved):
    difference = np.abs(logits_here(saved / "longrope") - np.load(saved / "longrope" / "logits.npy")).max()
    assert difference > 100 * LARGEST_DIFFERENCE


def test_the_files_are_of_transformers_5(saved):
    config = json.loads((saved / "longrope" / "config.json").read_text())
    tokenizer = json.loads((saved / "longrope" / "tokenizer_config.json").read_text())
    assert config["rope_parameters"]["rope_type"] == "longrope" and "rope_scaling" not in config
    assert tokenizer["tokenizer_class"] == "TokenizersBackend"


@pytest.mark.parametrize("name", MODELS)
def test_the_manifest_says_what_was_translated_and_from_which_version(saved, name):
    changes = build_manifest(saved / name, ORIGIN).canonical.changes
    version = next(line for line in (HERE / "transformers5.txt").read_text().splitlines() if "==" in line)
    assert changes[0].startswith(f"config.json: rope_parameters of transformers {version.partition('==')[2]} became")
    assert any("TokenizersBackend became PreTrainedTokenizerFast" in change for change in changes)


@pytest.mark.parametrize("name", [*MODELS, *TOKENIZERS])
def test_the_canonical_form_has_transformers_5s_tokens(saved, canonical, name):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(canonical(name))
    for text, tokens in json.loads((saved / name / "tokens.json").read_text()):
        assert tokenizer(text)["input_ids"] == tokens


@pytest.mark.parametrize("name", MODELS)
def test_the_canonical_form_has_the_same_prompts(canonical, name):
    from transformers import AutoTokenizer

    shipped, read = AutoTokenizer.from_pretrained(TINY), AutoTokenizer.from_pretrained(canonical(name))
    messages = [{"role": "user", "content": "What is the capital of Côte d'Ivoire?\n\t12,5 €"}]
    assert read.apply_chat_template(messages, add_generation_prompt=True) == shipped.apply_chat_template(
        messages, add_generation_prompt=True
    )
