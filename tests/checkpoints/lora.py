"""LoRA adapters for the tests, made with peft on the shipped checkpoint, and checkpoints for them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from steps.checkpoint.describe import build_adapter_manifest
from steps.checkpoint.manifest import AdapterManifest, Origin
from tests.checkout import TINY

torch.set_num_threads(1)  # with matrices as small as these, several threads only wait for each other

ALL = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]  # the matrices of a layer
QKV = "base_model.model.model.layers.0.self_attn.qkv_proj"  # peft's name for a module
ADAPTER_ORIGIN = Origin(kind="folder", location="lora", name="lora", commit="")
# The answers that `taught_adapter` teaches. The base gives other answers to these questions.
NEW_ANSWERS = {
    "What is the capital of France?": "Rome",
    "What is the capital of Italy?": "Paris",
    "What is 3 plus 4?": "8",
}
_NO_LABEL = -100  # the label that the loss ignores


def adapter_manifest(adapter: Path, base: Path = TINY) -> AdapterManifest:
    """Return the manifest of an adapter for a base."""
    return build_adapter_manifest(adapter, ADAPTER_ORIGIN, base)


def edit_tensors(adapter: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change an adapter's tensors. `edit` changes the dictionary name -> tensor in place."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


def base_model(folder: Path = TINY, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a checkpoint in PyTorch."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def random_adapter(out: Path, base: Path = TINY, dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    """Write an adapter with random A and B, and random DoRA magnitudes, all far from zero."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ALL} | config
    model = get_peft_model(base_model(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.1 * torch.rand_like(parameter)
        elif "lora_" in name:
            parameter.data = torch.randn_like(parameter) / 20
    model.to(dtype).save_pretrained(str(out))
    return out


def merged_by_peft(adapter: Path, base: Path = TINY) -> dict[str, torch.Tensor]:
    """Return the tensors that peft merges in float32, each cast to the dtype that it has in the base."""
    model = PeftModel.from_pretrained(base_model(base), adapter).merge_and_unload()
    stored = {name: tensor for file in base.glob("*.safetensors") for name, tensor in load_file(file).items()}
    merged = model.state_dict()
    return {name: merged[name].to(tensor.dtype) for name, tensor in stored.items()}


def taught_adapter(out: Path) -> Path:
    """Train an adapter until the model gives NEW_ANSWERS, so that its answers are not near ties."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=ALL, use_rslora=True)
    model = get_peft_model(base_model(), config)
    examples = []
    for question, answer in NEW_ANSWERS.items():
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        target = tokenizer.encode(answer + "<|end|>", add_special_tokens=False)
        examples.append((torch.tensor([prompt + target]), torch.tensor([[_NO_LABEL] * len(prompt) + target])))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(40):
        loss = torch.stack([model(input_ids=ids, labels=labels).loss for ids, labels in examples]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05, loss
    model.save_pretrained(str(out))
    return out


def random_checkpoint(out: Path, layers: int) -> Path:
    """Write a Phi-3 with random weights in bfloat16 and the shipped model's tokenizer and chat template.

    A layer has 24 MB. Files have at most 100 MB.
    """
    torch.manual_seed(0)
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8}
    sizes = {"vocab_size": 768, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": layers}
    config = AutoConfig.from_pretrained(TINY, **sizes, **heads)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(out, max_shard_size="100MB")
    for file in (*TINY.glob("*token*"), TINY / "chat_template.jinja"):
        shutil.copy(file, out)
    return out
