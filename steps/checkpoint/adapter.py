"""Read a LoRA adapter in PEFT's format: its files, and its config.

The format: `adapter_config.json` holds the fields of peft's LoraConfig. `adapter_model.safetensors` holds the tensors
(https://huggingface.co/docs/peft/developer_guides/checkpoint):

    base_model.model.MODULE.lora_A.weight      [rank, inputs]
    base_model.model.MODULE.lora_B.weight      [outputs, rank]
    base_model.model.MODULE.lora_embedding_A   [rank, vocabulary]   an embedding has these in place of lora_A and lora_B
    base_model.model.MODULE.lora_embedding_B   [size, rank]
    base_model.model.MODULE.lora_magnitude_vector                   with DoRA
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.checkpoint.checks import ADAPTER_CONFIG, PICKLED
from steps.common.errors import StepError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "tokenizer.json",  # read only to see whether the adapter adds tokens
    "added_tokens.json",
    "LICENSE*",
    "NOTICE*",
    "README.md",
)
PREFIX = "base_model.model."  # before each module's name in a tensor's name
MERGE_FIRST = (
    "merge it with peft where it was trained (merge_and_unload, save_pretrained), and give the merged folder as the "
    "source, without an adapter"
)
# The fields that say what the adapter adds to the weights. Merging reads these fields only.
_MERGED_FIELDS = (
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
)
# The fields that say how the adapter was trained, or repeat what the tensors' names say. Any other field that is set
# makes peft do something beside LoRA, which merging would leave out.
_IGNORED_FIELDS = (
    "peft_type",
    "peft_version",
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "bias",
    "lora_dropout",
    "init_lora_weights",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "runtime_config",
    "ensure_weight_tying",
    "megatron_core",
    "qalora_group_size",
)
# The values of init_lora_weights that leave the base's weights as they are. All other values change them.
_INITS_THAT_KEEP_BASE = (True, False, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class AdapterConfig:
    """What adapter_config.json says, of an adapter that can be merged."""

    rank: int
    alpha: float
    rank_pattern: dict[str, int]  # regular expression for module names -> rank, in place of `rank`
    made_for: str  # the base that the adapter names
    lora_fields: dict[str, Any]  # arguments of peft's LoraConfig


def check_adapter_files(names: Iterable[str]) -> None:
    """Raise StepError if an adapter has no config or no safetensors weights.

    Args:
        names: the adapter's files, relative to its folder.
    """
    top = sorted(name for name in names if "/" not in name)
    if ADAPTER_CONFIG not in top:
        raise StepError(
            f"the adapter has no {ADAPTER_CONFIG}: expected a LoRA adapter as peft's save_pretrained writes it"
        )
    if ADAPTER_WEIGHTS in top:
        return
    pickled = [name for name in top if name.startswith("adapter") and name.endswith(PICKLED)]
    if pickled:
        raise StepError(
            f"{pickled[0]} is pickled, and loading a pickle can run any code that is in it: save the adapter again "
            f"with peft (save_pretrained), which writes {ADAPTER_WEIGHTS}"
        )
    raise StepError(f"the adapter has no {ADAPTER_WEIGHTS}: save it again with peft (save_pretrained)")


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Return the config of an adapter that is LoRA and nothing else.

    Raises:
        StepError: the file is missing or damaged, or a field asks for something that cannot be merged.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        peft_type = config["peft_type"]
        rank_pattern = dict(config.get("rank_pattern") or {})
    except FileNotFoundError:
        raise StepError(f"the adapter has no {ADAPTER_CONFIG}: give a LoRA adapter as peft saves it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"{ADAPTER_CONFIG} is damaged ({error!r}): fetch or save the adapter again") from None
    if peft_type != "LORA":
        raise StepError(f"{ADAPTER_CONFIG}: peft_type is {peft_type!r}; expected 'LORA', or {MERGE_FIRST}")
    _check_fields(config)
    numbers = [config.get("r"), config.get("lora_alpha"), *rank_pattern.values()]
    if not all(isinstance(number, int | float) and number > 0 for number in numbers):
        raise StepError(f"{ADAPTER_CONFIG}: r and lora_alpha are {numbers}; expected numbers above 0")
    return AdapterConfig(
        rank=config["r"],
        alpha=config["lora_alpha"],
        rank_pattern=rank_pattern,
        made_for=str(config.get("base_model_name_or_path") or "a base that it does not name"),
        lora_fields={field: config[field] for field in _MERGED_FIELDS if config.get(field) is not None},
    )


def _check_fields(config: dict[str, Any]) -> None:
    """Raise StepError if a field asks for something beside LoRA."""
    for field, value in config.items():
        if value and field not in _MERGED_FIELDS + _IGNORED_FIELDS:
            raise StepError(f"{ADAPTER_CONFIG} sets {field}, which cannot be merged here: {MERGE_FIRST}")
    if (init := config.get("init_lora_weights", True)) not in _INITS_THAT_KEEP_BASE:
        raise StepError(
            f"{ADAPTER_CONFIG}: init_lora_weights is {init!r}, which changes the base's own weights: {MERGE_FIRST}"
        )
