"""config.json: each missing field and each value of a wrong type is one line that names file and field."""

import math
from typing import Any

import pytest

from steps.checkpoint.canonical import canonical_form
from steps.checkpoint.describe import build_manifest
from steps.common.errors import StepError
from tests.checkpoints.tiny import ORIGIN, drop, edit_json
from tests.checkpoints.variants import make_variant

pytestmark = pytest.mark.unit
CONFIG = "config.json"

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


@pytest.mark.parametrize("field", SIZES)
def test_a_missing_size_is_named(folder, field):
    drop(folder / CONFIG, field)
    with pytest.raises(StepError, match=f"^config.json has no {field}: fetch or save"):
        build_manifest(folder, ORIGIN)


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [None, "192", 192.5, 0, -1, True, [192], {}])
def test_a_size_is_a_whole_number_above_zero(folder, field, value):
    edit_json(folder / CONFIG, **{field: value})
    with pytest.raises(StepError, match=f"^config.json: {field} is .*; expected a whole number above 0: "):
        build_manifest(folder, ORIGIN)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"architectures": "Phi3ForCausalLM"}, "architectures is 'Phi3ForCausalLM'; expected a list of class names"),
    ({"architectures": [3]}, "architectures is .3.; expected a list of class names"),
    ({"model_type": 3}, "model_type is 3; expected a text"),
    ({"auto_map": ["a"]}, "auto_map is .'a'.; expected an object"),
    ({"num_key_value_heads": "3"}, "num_key_value_heads is '3'; expected a whole number above 0"),
    ({"num_key_value_heads": 4}, "num_key_value_heads is 4; expected a divisor of num_attention_heads, 6"),
    ({"num_attention_heads": 7}, "num_attention_heads is 7; expected a divisor of hidden_size, 192"),
    ({"rope_theta": "big"}, "rope_theta is 'big'; expected a number above 0"),
    ({"rms_norm_eps": [1]}, "rms_norm_eps is .1.; expected a number above 0"),
    ({"partial_rotary_factor": 0}, "partial_rotary_factor is 0; expected a number above 0"),
    ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'; expected true or false"),
    ({"dtype": "int4"}, "dtype is 'int4'; expected float64 or float32 or float16 or bfloat16"),
    ({"torch_dtype": ["float16"]}, "torch_dtype is "),
    ({"hidden_act": "swish9"}, "hidden_act is 'swish9'; expected an activation function"),
    ({"pad_token_id": 768}, "pad_token_id is 768; expected a token ID below vocab_size, 768"),
    ({"pad_token_id": "end"}, "pad_token_id is 'end'; expected a token ID"),
    ({"eos_token_id": "end"}, "eos_token_id is 'end'; expected a token ID or a list"),
    ({"rope_scaling": 4}, "rope_scaling is 4; expected one set of parameters for all layers"),
    (
        {"rope_scaling": {"type": "linear", "factor": 2}},
        "rope_scaling has rope_type 'linear'; a Phi-3 has default or longrope",
    ),
    ({"rope_scaling": {"type": 3}}, "rope_scaling.rope_type is 3; expected a name such as longrope"),
    ({"rope_scaling": {"type": "longrope"}}, "rope_scaling.short_factor is None; expected a list of 16 numbers"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=[str(fields)[:40] for fields, _ in WRONG])
def test_a_wrong_value_is_named(folder, fields, message):
    edit_json(folder / CONFIG, **fields)
    with pytest.raises(StepError, match=f"^config.json: {message}"):
        build_manifest(folder, ORIGIN)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("generation_config.json", {"eos_token_id": [3, -1]}, "eos_token_id is .3, -1.; expected a token ID or a list"),
        ("generation_config.json", {"bos_token_id": "a"}, "bos_token_id is 'a'; expected a token ID"),
        (
            "generation_config.json",
            {"do_sample": True, "temperature": "warm"},
            "temperature is 'warm'; expected a number",
        ),
        ("tokenizer_config.json", {"eos_token": 3}, "eos_token is 3; expected a token's text"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"a": 1}}, "added_tokens_decoder is damaged"),
        ("tokenizer_config.json", {"extra_special_tokens": "a"}, "extra_special_tokens is 'a'; expected tokens"),
        ("special_tokens_map.json", {"additional_special_tokens": [3]}, "additional_special_tokens is .3."),
    ],
)
def test_a_wrong_value_of_another_file_is_named(folder, file, fields, message):
    edit_json(folder / file, **fields)
    with pytest.raises(StepError, match=f"^{file}: {message}"):
        build_manifest(folder, ORIGIN)


LONG = {"type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}


def translated(folder, **fields: Any) -> dict[str, Any]:
    """Return config.json of the canonical form, after fields were changed in the source."""
    edit_json(folder / CONFIG, **fields)
    return canonical_form(folder).settings.config


def test_rope_parameters_become_the_fields_of_transformers_4(folder):
    new = {k: v for k, v in LONG.items() if k != "type"} | {
        "rope_type": "longrope",
        "rope_theta": 500.0,
        "original_max_position_embeddings": 512,
        "factor": 4.0,
    }
    drop(folder / CONFIG, "rope_theta", "rope_scaling", "original_max_position_embeddings")
    config = translated(folder, rope_parameters=new)
    assert (config["rope_theta"], config["original_max_position_embeddings"]) == (500.0, 512)
    assert config["rope_scaling"] == LONG
    assert "rope_parameters" not in config


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"full_attention": {"rope_type": "default"}}, "expected one set of parameters for all layers"),
        ({"rope_type": "yarn", "factor": 2.0}, "rope_parameters.short_factor is None"),
        ({"rope_type": "dynamic", "factor": 2.0}, "has rope_type 'dynamic'; a Phi-3 has default or longrope"),
        ({"rope_type": "default", "mystery": 1}, "has mystery with rope_type 'default'"),
        ({**LONG, "attention_factor": 1.2}, "has rope_type 'longrope' with attention_factor"),
        ({**LONG, "factor": 3.0, "original_max_position_embeddings": 512}, "has factor 3.0, and max_.* is 4;"),
        (
            {"rope_type": "default", "rope_theta": "big"},
            "rope_parameters.rope_theta is 'big'; expected a number above 0",
        ),
    ],
)
def test_rope_that_transformers_4_cannot_compute_is_refused(folder, rope, message):
    drop(folder / CONFIG, "rope_scaling")
    edit_json(folder / CONFIG, rope_parameters=rope)
    with pytest.raises(StepError, match=message):
        build_manifest(folder, ORIGIN)


def test_two_ropes_are_refused(folder):
    edit_json(folder / CONFIG, rope_parameters={"rope_type": "default"}, rope_scaling=LONG)
    with pytest.raises(StepError, match="both rope_parameters and rope_scaling"):
        build_manifest(folder, ORIGIN)


def test_the_first_name_of_longrope_is_read(folder):
    config = translated(folder, rope_scaling=LONG | {"type": "su"}, original_max_position_embeddings=512)
    assert config["rope_scaling"] == LONG


def test_a_phi3_without_longrope_has_one_length(folder):
    assert translated(folder, max_position_embeddings=8192)["original_max_position_embeddings"] == 8192


def test_a_llama_keeps_the_fields_of_its_own_rope(tmp_path):
    folder = make_variant(tmp_path / "llama", "llama")
    drop(folder / CONFIG, "rope_scaling", "rope_theta")
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    inside = {"original_max_position_embeddings": 8192}
    config = translated(folder, rope_parameters=llama3 | inside | {"rope_theta": 5e5})
    assert config["rope_scaling"] == llama3 | inside
    assert math.isclose(config["rope_theta"], 5e5)


def test_a_null_head_size_is_dropped(folder):
    assert "head_dim" not in translated(folder, head_dim=None)


def test_sampling_parameters_of_a_model_that_does_not_sample_are_dropped(folder):
    edit_json(folder / "generation_config.json", do_sample=False, temperature=0.6, max_length=20)
    settings = canonical_form(folder).settings
    assert "temperature" not in settings.written["generation_config.json"]
    assert "generation_config.json: left out fields that no wrapper reads: max_length, temperature" in settings.changes
