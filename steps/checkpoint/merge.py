"""Merge a LoRA adapter into a checkpoint on disk, one matrix at a time. Memory does not grow with the model.

peft computes each merged matrix, so that the result is peft's own for every variant of LoRA. For this purpose peft gets
a model whose weights are placeholders. One weight at a time is read from disk, put in the place of its placeholder,
merged and written; then the placeholder comes back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.checkpoint.adapter import ADAPTER_WEIGHTS, PREFIX, read_adapter_config
from steps.checkpoint.checks import ADAPTER_CONFIG
from steps.checkpoint.headers import read_header
from steps.common.disk import need_space
from steps.common.errors import StepError

if TYPE_CHECKING:
    import torch

_BLOCK = 8 << 20  # bytes copied at a time


@dataclass(frozen=True)
class _Layer:
    """peft's layer for one weight, and the weight that the adapter brings in place of the base's, or None.

    peft saves an embedding that has an adapter whole, and loads it in place of the base's embedding.
    """

    peft_layer: Any
    saved_base: "torch.Tensor | None"


def merge_adapter(
    base: Path, adapter: Path, out: Path, names: Sequence[str], progress: Callable[[int], object] = lambda count: None
) -> None:
    """Write the checkpoint `base` with the adapter merged into `out`: new weights, and links to the other files.

    The weight files keep their names and headers, because merging changes no tensor's name, dtype or shape. peft adds
    in float32. The sum is rounded once, to the dtype of the base.

    Args:
        base: the folder of the checkpoint.
        adapter: the folder of the adapter.
        out: the folder to write. It must not exist.
        names: the names of the checkpoint's files.
        progress: called with the number of bytes of each block that was written.

    Raises:
        StepError: the disk is too small, the adapter's config contradicts its weights, or a sum is not finite.
    """
    weight_files = [name for name in names if name.endswith(".safetensors")]
    need_space("merging the adapter", [(out, sum((base / name).stat().st_size for name in weight_files))])
    layers = _attach(base, adapter)
    out.mkdir(parents=True)
    for name in names:
        if name in weight_files:
            _write_merged(base / name, out / name, layers, progress)
        else:
            (out / name).symlink_to((base / name).resolve())


def _attach(base: Path, adapter: Path) -> dict[str, _Layer]:
    """Return peft's layer for each weight that the adapter changes, by the weight's name in the base.

    Raises:
        StepError: the adapter's config and its weights name different modules.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    model = get_peft_model(
        _placeholder_model(base), LoraConfig(**read_adapter_config(adapter).lora_fields), low_cpu_mem_usage=True
    )
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    result: Any = set_peft_model_state_dict(model, tensors, low_cpu_mem_usage=True)
    not_loaded = [name for name in result.missing_keys if ".lora_" in name]
    if mismatched := sorted(result.unexpected_keys) + not_loaded:
        raise StepError(
            f"the target_modules of {ADAPTER_CONFIG} and the tensors of {ADAPTER_WEIGHTS} name different modules "
            f"({mismatched[0].removeprefix(PREFIX)}): the config and the weights belong to different adapters"
        )
    return {
        name.removeprefix(PREFIX) + ".weight": _Layer(layer, tensors.get(f"{name}.base_layer.weight"))
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def _placeholder_model(base: Path) -> "torch.nn.Module":
    """Return the base's model without its weights. Each weight is one zero, expanded to the weight's shape.

    Weights on the device `meta` would not do: peft moves the adapter to the device that it finds here.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.float32)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            placeholder = torch.zeros(()).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(placeholder, requires_grad=False))
    return model


def _write_merged(source: Path, target: Path, layers: dict[str, _Layer], progress: Callable[[int], object]) -> None:
    """Copy a safetensors file. Replace each tensor that has a layer by the merged tensor."""
    from safetensors import safe_open

    header = read_header(source)
    with source.open("rb") as old, target.open("wb") as new, safe_open(source, framework="pt") as tensors:
        new.write(old.read(header.data_start))
        for name, tensor in sorted(header.tensors.items(), key=lambda item: item[1].begin):
            if name in layers:
                new.write(_merged_bytes(name, layers[name], tensors.get_tensor(name)))
                progress(tensor.end - tensor.begin)
                continue
            old.seek(header.data_start + tensor.begin)
            left = tensor.end - tensor.begin
            while left:
                block = old.read(min(_BLOCK, left))
                new.write(block)
                left -= len(block)
                progress(len(block))


def _merged_bytes(name: str, layer: _Layer, weight: "torch.Tensor") -> memoryview:
    """Return the bytes of a weight with the adapter merged into it, in the weight's dtype.

    Raises:
        StepError: a value of the sum is not finite.
    """
    import torch

    parameter = layer.peft_layer.get_base_layer().weight
    placeholder = parameter.data
    parameter.data = (weight if layer.saved_base is None else layer.saved_base).to(torch.float32, copy=True)
    layer.peft_layer.merge()
    layer.peft_layer.merged_adapters.clear()  # or peft would not merge again; a checkpoint may repeat a tensor
    merged = parameter.data.to(weight.dtype).contiguous()
    parameter.data = placeholder
    if not all(torch.isfinite(bound) for bound in merged.aminmax()):  # a NaN makes both bounds NaN
        raise StepError(
            f"merging the adapter into {name} gives numbers that are not finite: the adapter is damaged, or its values "
            f"are too large for {str(weight.dtype).removeprefix('torch.')}"
        )
    return memoryview(merged.view(torch.uint8).numpy())
