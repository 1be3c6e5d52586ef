"""Merge a LoRA adapter into a checkpoint on disk, one matrix at a time: memory does not grow with the model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.checkpoint.adapter import ADAPTER_WEIGHTS, MERGED_FIELDS, PREFIX, read_adapter_config
from steps.checkpoint.headers import read_header
from steps.common.disk import need_space
from steps.common.errors import StepError

if TYPE_CHECKING:
    import torch

_BLOCK = 8 << 20


def merge_adapter(
    base: Path, adapter: Path, out: Path, files: list[str], progress: Callable[[int], object] = lambda count: None
) -> None:
    """Write the checkpoint `base` with the adapter merged into `out`: new weights, links to the other files.

    The weights' files keep their names and headers, since merging changes no tensor's name, dtype or shape. What is
    added is peft's own doing; it is added in float32 and rounded once, to the base's dtype.

    Args:
        files: the names of the checkpoint's files.
        progress: told the number of bytes written, as they are.

    Raises:
        StepError: the disk is too small, the adapter's config and weights disagree, or a sum is not finite.
    """
    weights = [name for name in files if name.endswith(".safetensors")]
    need_space("merging the adapter", [(out, sum((base / name).stat().st_size for name in weights))])
    layers = _attach(base, adapter)
    out.mkdir(parents=True)
    for name in files:
        if name in weights:
            _write(base / name, out / name, layers, progress)
        else:
            (out / name).symlink_to((base / name).resolve())


def _attach(base: Path, adapter: Path) -> dict[str, tuple[Any, "torch.Tensor | None"]]:
    """Weight's name in the base -> peft's layer for it, with a placeholder for the weight, and the adapter's own base.

    peft saves an embedding that has an adapter whole, and loads it in the place of the base's.
    """
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.float32)
    for module in model.modules():  # peft moves the adapter to the device and dtype that it finds here
        for name, parameter in list(module.named_parameters(recurse=False)):
            empty = torch.zeros(()).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(empty, requires_grad=False))
    config = read_adapter_config(adapter)
    lora = LoraConfig(**{field: config[field] for field in MERGED_FIELDS if config.get(field) is not None})
    merged = get_peft_model(model, lora, low_cpu_mem_usage=True)
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    result = set_peft_model_state_dict(merged, tensors, low_cpu_mem_usage=True)
    layers = {
        name.removeprefix(PREFIX) + ".weight": (layer, tensors.get(f"{name}.base_layer.weight"))
        for name, layer in merged.named_modules()
        if isinstance(layer, LoraLayer)
    }
    without = [name for name in result.missing_keys if ".lora_" in name]
    if wrong := sorted(result.unexpected_keys) + without:
        raise StepError(
            f"adapter_config.json's target_modules and {ADAPTER_WEIGHTS} do not name the same modules "
            f"({wrong[0].removeprefix(PREFIX)}): the config and the weights are of different adapters"
        )
    return layers


def _write(source: Path, target: Path, layers: dict[str, Any], progress: Callable[[int], object]) -> None:
    """Copy a safetensors file, with the merged matrices in the place of the layers' own."""
    from safetensors import safe_open

    header = read_header(source)
    with source.open("rb") as old, target.open("wb") as new, safe_open(source, framework="pt") as tensors:
        new.write(old.read(header.data_start))
        for name, entry in sorted(header.tensors.items(), key=lambda item: item[1].begin):
            begin, end = entry.begin, entry.end
            if name in layers:
                new.write(_merged(name, *layers[name], tensors.get_tensor(name)))
                progress(end - begin)
                continue
            old.seek(header.data_start + begin)
            while begin < end:
                block = old.read(min(_BLOCK, end - begin))
                new.write(block)
                begin += len(block)
                progress(len(block))


def _merged(name: str, layer: Any, own: "torch.Tensor | None", weight: "torch.Tensor") -> memoryview:
    """The bytes of a weight with the adapter merged into it, in the weight's own dtype."""
    import torch

    place = layer.get_base_layer().weight
    placeholder = place.data
    place.data = (weight if own is None else own).to(torch.float32, copy=True)
    layer.merge()
    layer.merged_adapters.clear()  # a checkpoint may hold a tensor in two files
    result = place.data.to(weight.dtype).contiguous()
    place.data = placeholder
    if not all(torch.isfinite(end) for end in result.aminmax()):  # a NaN is both ends
        raise StepError(
            f"merging the adapter into {name} gives numbers that are not finite: the adapter is damaged, or too large "
            f"for {str(weight.dtype).removeprefix('torch.')}"
        )
    return memoryview(result.view(torch.uint8).numpy())
