"""A checkpoint as a PyTorch model whose weights stay in their files: memory-mapped, in the dtype of the files."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from steps.checkpoint.headers import weight_files
from steps.common.errors import StepError
from steps.conversion.weights import Rows, Weight

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ROWS = 8192  # rows of a matrix that are float32 at the same time
_GROUP = 64  # neighbouring rows whose error is averaged


def open_model(folder: Path) -> "PreTrainedModel":
    """Return the model that config.json describes, with the memory-mapped tensors as its weights.

    A weight is read when it is used, and counts as page cache, not as memory of the process. The rotary embeddings are
    computed, because no file holds them.

    Raises:
        StepError: the weights are not the ones that config.json describes; the line names the first that differs.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):  # no memory for the weights
        model = AutoModelForCausalLM.from_config(config)
    expected = dict(model.named_parameters())
    tied = set(model._tied_weights_keys or ()) if config.tie_word_embeddings else set()
    tensors = _mapped_tensors(folder)
    for name, parameter in expected.items():
        if name not in tensors and name not in tied:
            raise StepError(f"config.json describes {name}, which the weights lack: they are of different models")
        if name in tensors and tensors[name].shape != parameter.shape:
            raise StepError(
                f"config.json describes {name} of {_shape_text(parameter.shape)}, and the weights have "
                f"{_shape_text(tensors[name].shape)}: they are of different models"
            )
    model.load_state_dict({name: tensors[name] for name in expected if name in tensors}, strict=False, assign=True)
    model.tie_weights()
    _compute_buffers(model)
    return model.eval()


def _mapped_tensors(folder: Path) -> dict[str, "torch.Tensor"]:
    """Return every tensor of the checkpoint by name, memory-mapped."""
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return tensors


def _compute_buffers(model: "PreTrainedModel") -> None:
    """Build the modules anew that have buffers without memory: the rotary embeddings."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if any(buffer.is_meta for buffer in child.buffers(recurse=False)):
                setattr(module, name, type(child)(config=model.config))


def float32_logits(
    model: "PreTrainedModel", tokens: list[int], weights: Mapping[str, Weight] | None = None
) -> np.ndarray:
    """Return the logits [tokens, vocabulary] in float32. Each weight is cast to float32 while it is used.

    Args:
        model: from open_model. Its layers work like this from now on.
        weights: other weights, by the name of the parameter that each of them replaces. None takes the model's own.
    """
    import torch

    for name, layer in model.named_modules(remove_duplicate=False):
        # An instance's own `forward` hides its class's. Modules of another class would have to be put into their
        # parents one by one, and would break the tie between embedding and head.
        if isinstance(layer, torch.nn.Linear):
            read = _reader(layer.weight, weights, name)
            layer.forward = partial(_float32_linear, layer, read)  # type: ignore[method-assign]  # see above
        elif isinstance(layer, torch.nn.Embedding):
            read = _reader(layer.weight, weights, name)
            layer.forward = partial(_float32_embedding, read)  # type: ignore[method-assign]  # see above
        else:  # norms, which are small
            for part, parameter in layer.named_parameters(recurse=False):
                new = weights[f"{name}.{part}"].read(slice(0, len(parameter))) if weights else parameter.data.float()
                parameter.data = new
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def weight_errors(model: "PreTrainedModel", weights: Mapping[str, Weight]) -> Iterator[tuple[str, float]]:
    """Yield the name of each weight and how far it is from the model's own, in rounding steps.

    The error is the root mean square of 64 neighbouring rows, the worst of the weight: an attention head has about as
    many, and a wrong head must not be averaged with right ones. Rounding to the nearest number gives 0.3 steps, at most
    0.5. Another weight gives at least 3.

    Args:
        model: from open_model, before float32_logits.
    """
    import torch

    for name, parameter in model.named_parameters(remove_duplicate=False):
        squares, steps = [], []  # by row
        for rows in row_slices(len(parameter)):
            difference = weights[name].read(rows) - parameter.data[rows].float()
            squares.append(difference.double().square().reshape(len(difference), -1).sum(1))
            steps.append(weights[name].steps(rows).double().square().reshape(len(difference), -1).sum(1))
        yield name, max(map(_root_ratio, torch.cat(squares).split(_GROUP), torch.cat(steps).split(_GROUP)))


def _root_ratio(squares: "torch.Tensor", steps: "torch.Tensor") -> float:
    """Return the root of the ratio of two sums. The steps of rows of zeros are 0."""
    error, size = float(squares.sum()), float(steps.sum())
    if math.isnan(error) or size == 0:
        return 0.0 if error == 0 else math.inf
    return (error / size) ** 0.5


def row_slices(rows: int) -> Iterator[slice]:
    """Yield the pieces in which a matrix is read."""
    for start in range(0, rows, _ROWS):
        yield slice(start, min(start + _ROWS, rows))


def _reader(own: "torch.Tensor", weights: Mapping[str, Weight] | None, name: str) -> Callable[[Rows], "torch.Tensor"]:
    """Return what reads some rows of a weight as float32."""
    return weights[f"{name}.weight"].read if weights else lambda rows: own[rows].float()


def _float32_linear(
    layer: "torch.nn.Linear", read: Callable[[Rows], "torch.Tensor"], x: "torch.Tensor"
) -> "torch.Tensor":
    import torch

    parts = [torch.nn.functional.linear(x, read(rows)) for rows in row_slices(layer.out_features)]
    result = torch.cat(parts, dim=-1)
    return result if layer.bias is None else result + layer.bias.float()


def _float32_embedding(read: Callable[[Rows], "torch.Tensor"], ids: "torch.Tensor") -> "torch.Tensor":
    return read(ids.flatten().numpy()).reshape(*ids.shape, -1)


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
