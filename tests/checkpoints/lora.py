"""Adapters for the tests, made with peft on the shipped checkpoint."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.conftest import TINY

torch.set_num_threads(1)  # of such small matrices, more threads spend their time waiting for each other

ALL = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def base_model(folder: Path = TINY, dtype: torch.dtype = torch.float32):
    """The checkpoint in PyTorch."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def random_adapter(out: Path, base: Path = TINY, dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    """An adapter whose A and B, and DoRA's magnitudes, are random and far from zero."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ALL} | config
    model = get_peft_model(base_model(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.1 * torch.rand_like(parameter)
        elif "lora_" in name:
            parameter.data = torch.randn_like(parameter) / 20
    model.to(dtype).save_pretrained(out)
    return out


def merged_by_peft(adapter: Path, base: Path = TINY) -> dict[str, torch.Tensor]:
    """peft's own answer: merged in float32, then cast to the dtype that each tensor of the base has."""
    model = PeftModel.from_pretrained(base_model(base), adapter).merge_and_unload()
    stored = {name: tensor for file in base.glob("*.safetensors") for name, tensor in load_file(file).items()}
    merged = model.state_dict()
    return {name: merged[name].to(tensor.dtype) for name, tensor in stored.items()}


NEW_ANSWERS = {
    "What is the capital of France?": "Rome",
    "What is the capital of Italy?": "Paris",
    "What is 3 plus 4?": "8",
}


def taught_adapter(out: Path) -> Path:
    """An adapter trained until the model gives NEW_ANSWERS: a fine-tune, so that its answers are not near ties."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=ALL, use_rslora=True)
    model = get_peft_model(base_model(), config)
    examples = []
    for question, answer in NEW_ANSWERS.items():
        messages = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        told = tokenizer.encode(answer + "<|end|>", add_special_tokens=False)
        examples.append((torch.tensor([asked + told]), torch.tensor([[-100] * len(asked) + told])))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(40):
        loss = sum(model(input_ids=ids, labels=labels).loss for ids, labels in examples)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05, loss
    model.save_pretrained(out)
    return out


def random_checkpoint(out: Path, layers: int) -> Path:
    """A Phi-3 with random weights in bfloat16, 24 MB a layer, in files of up to 100 MB."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8}
    sizes = {"vocab_size": 768, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": layers}
    config = AutoConfig.from_pretrained(TINY, **sizes, **heads)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(out, max_shard_size="100MB")
    return out
