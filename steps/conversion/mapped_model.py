"""A checkpoint as a PyTorch model whose weights stay in their files: memory-mapped, in the files' own dtype."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from steps.common.errors import StepError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 8192  # of a matrix that are float32 at a time


def open_model(folder: Path) -> "PreTrainedModel":
    """Build the model from config.json without memory for its weights, and put the mapped tensors in.

    The weights are read when they are used and count as page cache, not as the process's own memory. Rotary embeddings,
    which no file holds, are computed.

    Raises:
        StepError: the tensors are not those that config.json asks for; the line names the first that differs.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = dict(model.named_parameters())
    tied = set(model._tied_weights_keys or ())
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            state |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
    for name, parameter in expected.items():
        if name not in state and not (config.tie_word_embeddings and name in tied):
            raise StepError(f"config.json asks for {name}, which the weights lack: they are of different models")
        if name in state and state[name].shape != parameter.shape:
            raise StepError(
                f"config.json asks for {name} of {_text(parameter.shape)}, and the weights have "
                f"{_text(state[name].shape)}: they are of different models"
            )
    model.load_state_dict({name: state[name] for name in expected if name in state}, strict=False, assign=True)
    model.tie_weights()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if any(buffer.is_meta for buffer in child.buffers(recurse=False)):
                setattr(module, name, type(child)(config=config))
    return model.eval()


def float32_logits(model: "PreTrainedModel", tokens: list[int]) -> np.ndarray:
    """Logits [tokens, vocabulary] in float32, each weight made float32 for as long as it is used.

    Args:
        model: from open_model. Its layers are changed so that they work like this from now on.
    """
    import torch

    def linear(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        rows = layer.weight.split(_ROWS)
        result = torch.cat([torch.nn.functional.linear(x, part.float()) for part in rows], dim=-1)
        return result if layer.bias is None else result + layer.bias.float()

    def embedding(layer: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(ids, layer.weight).float()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.forward = partial(linear, layer)
        elif isinstance(layer, torch.nn.Embedding):
            layer.forward = partial(embedding, layer)
        else:  # norms, which are small
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.float()
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
