"""Refuse a checkpoint that is unsafe, is not supported, or contradicts itself.

The checks read file names, config.json and the headers of the weights.
"""

import fnmatch
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from steps.checkpoint.config_checks import check_names, check_values
from steps.checkpoint.headers import Weights
from steps.checkpoint.hidden_code import refuse_code
from steps.checkpoint.transformers_source import defines_model
from steps.checkpoint.weight_checks import check_not_quantised
from steps.common.errors import StepError

# The only files of a checkpoint that are fetched, hashed and logged. Training tools leave many others.
ALLOWED = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.jinja",
    "*.model",  # SentencePiece
    "merges.txt",
    "vocab.txt",
    "LICENSE*",
    "NOTICE*",
    "README.md",
)
_NO_ONNX = ("PhiForCausalLM", "PhimoeForCausalLM")
_SPELLINGS = {"PhiMoEForCausalLM": "PhimoeForCausalLM"}  # the published name -> transformers' name
_UNPACKED = ("LlamaForCausalLM", "MistralForCausalLM")  # Q, K, V and the MLP's two are matrices of their own
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
ADAPTER_CONFIG = "adapter_config.json"


def is_allowed(name: str, patterns: Iterable[str] = ALLOWED) -> bool:
    """Return whether a file is in the top folder and matches one of the patterns."""
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_files(names: Iterable[str]) -> None:
    """Raise StepError if a checkpoint has no safetensors weights, or has an adapter in its folder.

    Args:
        names: the checkpoint's files, relative to its folder.
    """
    top = sorted(name for name in names if "/" not in name)
    # transformers would load the adapter without a message; the ONNX exporters would ignore it.
    if ADAPTER_CONFIG in top:
        raise StepError(
            f"the source contains {ADAPTER_CONFIG}, which means a PEFT adapter: give the adapter's folder or "
            "repository as the parameter adapter, and the model that it was trained on as the source"
        )
    if any(name.endswith(".safetensors") for name in top):
        return
    pickled = [name for name in top if name.endswith(PICKLED)]
    if pickled:
        raise StepError(
            f"{pickled[0]} is pickled, and loading a pickle can run any code that is in it: "
            "convert the weights to safetensors and give that folder or repository"
        )
    raise StepError(
        "the checkpoint has no *.safetensors file: save it again with save_pretrained, which writes that format"
    )


def check_usable(config: dict[str, Any]) -> None:
    """Raise StepError if config.json alone shows that no wrapper can use the checkpoint.

    This comes before the download of the weights.

    Args:
        config: the content of config.json.
    """
    check_names(config)
    check_architecture(config)
    check_not_quantised(config)
    refuse_code(config, "config.json")
    check_values(config)


def architecture_of(config: dict[str, Any]) -> str:
    """Return the architecture of a checkpoint as transformers spells it; "none" if config.json names none."""
    name = (config.get("architectures") or ["none"])[0]
    return _SPELLINGS.get(name, name)


def check_architecture(config: dict[str, Any]) -> None:
    """Raise StepError if transformers could load the checkpoint only by running code of the repository.

    Args:
        config: the content of config.json.
    """
    architecture = architecture_of(config)
    model_type = config.get("model_type", "none")
    if architecture.endswith("ForCausalLM") and defines_model(model_type, architecture):
        return
    code = [str(value).split("--")[-1].split(".")[0] + ".py" for value in (config.get("auto_map") or {}).values()]
    never_run = f", and the code in {code[-1]} is never run" if code else ""
    raise StepError(
        f"config.json: architecture {architecture} (model type {model_type!r}) is not a causal language model that "
        f"transformers {version('transformers')} has natively{never_run}: use a Phi3ForCausalLM checkpoint "
        "(Phi-3, Phi-3.5, Phi-4 or Phi-4-mini)"
    )


def wrappers_of(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the wrappers that an architecture can have: `transformers`, and `custom` if it can be converted.

    onnxruntime-genai 0.15.2 has no builder class for phi-2 (PhiForCausalLM), and builds Phi-3.5-MoE for CUDA only.
    """
    return ("transformers",) if architecture_of(config) in _NO_ONNX else ("transformers", "custom")


def check_convertible(architecture: str, wrappers: tuple[str, ...]) -> None:
    """Raise StepError if an architecture cannot have the custom model.

    Args:
        architecture: its name, for the error.
        wrappers: from `wrappers_of`.
    """
    if "custom" not in wrappers:
        raise StepError(
            f"{architecture} cannot be converted to ONNX: onnxruntime-genai {version('onnxruntime-genai')} has no "
            "class for it on CPUs. Its only wrapper is transformers: run fetch_model and wrap_transformer alone, with "
            "steps=fetch_model,wrap_transformer"
        )


def check_config(config: dict[str, Any], weights: Weights) -> None:
    """Raise StepError if config.json contradicts the weights.

    Args:
        config: the content of config.json, after check_usable.
    """
    embedding = weights.shapes.get("model.embed_tokens.weight")
    vocabulary, hidden, layers = (config.get(key) for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    if embedding and embedding != (vocabulary, hidden):
        raise StepError(
            f"config.json says vocab_size {vocabulary} and hidden_size {hidden}, but model.embed_tokens.weight is "
            f"{shape_text(embedding)}: they belong to different models"
        )
    stored_layers = {name.split(".")[2] for name in weights.shapes if name.startswith("model.layers.")}
    if stored_layers and len(stored_layers) != layers:
        raise StepError(
            f"config.json says num_hidden_layers {layers}, but the weights hold {len(stored_layers)}: "
            "they belong to different models"
        )
    for name, shape in _expected_shapes(config).items():
        actual = weights.shapes.get(name)
        if actual != shape:
            raise StepError(
                f"config.json asks for {name} of {shape_text(shape)}, and the weights have "
                f"{shape_text(actual) if actual else 'none'}: they belong to different models"
            )


def _expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a Phi-3, Llama or Mistral; nothing for another architecture."""
    architecture = architecture_of(config)
    if architecture not in ("Phi3ForCausalLM", *_UNPACKED):
        return {}
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or hidden // heads
    query, key = heads * head_size, (config.get("num_key_value_heads") or heads) * head_size
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "self_attn.o_proj": (hidden, query),
        "post_attention_layernorm": (hidden,),
    }
    if architecture in _UNPACKED:
        layer |= {"self_attn.q_proj": (query, hidden), "self_attn.k_proj": (key, hidden)}
        layer |= {"self_attn.v_proj": (key, hidden), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden)}
    else:  # attention packs Q, K and V into one matrix; the MLP packs two
        layer |= {"self_attn.qkv_proj": (query + 2 * key, hidden), "mlp.gate_up_proj": (2 * inner, hidden)}
    layer["mlp.down_proj"] = (hidden, inner)
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    shapes |= {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as a person reads it: 384 x 192."""
    return " x ".join(str(size) for size in shape) or "nothing"
