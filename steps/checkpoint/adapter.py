"""What a LoRA adapter in PEFT's format is, and whether it can be merged into a checkpoint, from their headers alone.

The format: `adapter_config.json`, the fields of peft's LoraConfig; `adapter_model.safetensors`, whose tensors are named
`base_model.model.MODULE.lora_A.weight` [rank, inputs], `.lora_B.weight` [outputs, rank], for an embedding
`.lora_embedding_A` [rank, vocabulary] and `.lora_embedding_B` [size, rank], with DoRA `.lora_magnitude_vector`
(https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.checkpoint.checks import ADAPTER_CONFIG, PICKLED
from steps.checkpoint.headers import read_config, read_header, read_weights
from steps.common.errors import StepError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# The tokenizer's files only to see whether the adapter brings tokens of its own.
ADAPTER_FILES = (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "tokenizer.json",
    "added_tokens.json",
    "LICENSE*",
    "NOTICE*",
    "README.md",
)
PREFIX = "base_model.model."
# The fields of adapter_config.json that say what the adapter adds to the weights; merging reads these and no others.
MERGED_FIELDS = (
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
# Those that only say how it was trained, or repeat what the tensors' names show. Any other field that is set stands for
# something that peft would do beside LoRA, and that merging would leave out.
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
_KEEPS_BASE = (True, False, "gaussian", "eva", "orthogonal", "mica")  # the other ways to begin also change the base
_TENSOR = re.compile(
    re.escape(PREFIX)
    + r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|base_layer)"
    r"(?:\.weight)?"
)
_MERGE_FIRST = (
    "merge it with peft where it was trained (merge_and_unload, save_pretrained), and give the merged folder as the "
    "source, without an adapter"
)


@dataclass(frozen=True)
class AdapterFacts:
    """What the config and the headers of an adapter say."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]  # the last parts of the modules' names
    modules: int  # the number of modules that the adapter changes
    parameters: int
    made_for: str  # the base that the adapter names


def check_adapter_files(names: Iterable[str]) -> None:
    """Refuse an adapter without safetensors weights.

    Raises:
        StepError: naming the pickled file that it has instead, if any.
    """
    names = sorted(name for name in names if "/" not in name)
    if ADAPTER_CONFIG not in names:
        raise StepError(
            f"the adapter has no {ADAPTER_CONFIG}: expected a LoRA adapter as peft's save_pretrained writes it"
        )
    if ADAPTER_WEIGHTS in names:
        return
    pickled = [name for name in names if name.startswith("adapter") and name.endswith(PICKLED)]
    if pickled:
        raise StepError(
            f"{pickled[0]} is pickled, and loading a pickle runs whatever code is in it: save the adapter again with "
            f"peft (save_pretrained), which writes {ADAPTER_WEIGHTS}"
        )
    raise StepError(f"the adapter has no {ADAPTER_WEIGHTS}: save it again with peft (save_pretrained)")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, of an adapter that is LoRA and nothing more.

    Raises:
        StepError: it is missing or broken, or says something that cannot be merged; the line names the field.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except FileNotFoundError:
        raise StepError(f"the adapter has no {ADAPTER_CONFIG}: give a LoRA adapter as peft saves it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"{ADAPTER_CONFIG} is damaged ({error!r}): fetch or save the adapter again") from None
    if kind != "LORA":
        raise StepError(f"{ADAPTER_CONFIG}: peft_type is {kind!r}; expected 'LORA', or {_MERGE_FIRST}")
    for field, value in config.items():
        if value and field not in MERGED_FIELDS + _IGNORED_FIELDS:
            raise StepError(f"{ADAPTER_CONFIG} sets {field}, which cannot be merged here: {_MERGE_FIRST}")
    if (start := config.get("init_lora_weights", True)) not in _KEEPS_BASE:
        raise StepError(
            f"{ADAPTER_CONFIG}: init_lora_weights is {start!r}, which changes the base's own weights: {_MERGE_FIRST}"
        )
    numbers = [config.get("r"), config.get("lora_alpha"), *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(number, int | float) and number > 0 for number in numbers):
        raise StepError(f"{ADAPTER_CONFIG}: r and lora_alpha are {numbers}; expected numbers above 0")
    return config


def check_adapter(folder: Path, base: Path) -> AdapterFacts:
    """Whether the adapter in a folder fits the checkpoint in another: every module is there, every shape fits.

    Returns:
        rank and alpha, as configured; target_modules, the last parts of the modules' names; modules, their number;
        parameters; made_for, the base that the adapter names.

    Raises:
        StepError: naming the module or the field that does not fit.
    """
    check_adapter_files(path.name for path in folder.iterdir())
    config, base_config = read_adapter_config(folder), read_config(base)
    header = read_header(folder / ADAPTER_WEIGHTS).tensors
    made_for = str(config.get("base_model_name_or_path") or "a base that it does not name")
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, entry in header.items():
        if not (found := _TENSOR.fullmatch(name)):
            raise StepError(f"{ADAPTER_WEIGHTS} holds {name}, which is not a LoRA tensor: {_MERGE_FIRST}")
        modules.setdefault(found["module"], {})[found["part"]] = entry.shape
    if not modules:
        raise StepError(f"{ADAPTER_WEIGHTS} holds no tensors: save the adapter again with peft (save_pretrained)")
    if "quantization_config" in base_config:
        raise StepError("the source is quantised, which an adapter cannot be merged into: give the unquantised model")
    shapes = read_weights(base).shapes
    for module, parts in modules.items():
        _check_module(module, parts, shapes.get(f"{module}.weight"), _rank(module, config), made_for)
        if base_config.get("tie_word_embeddings") and module.endswith(("embed_tokens", "lm_head")):
            raise StepError(
                f"the adapter changes {module}, which the source shares between its embedding and its head: merge it "
                "with peft (merge_and_unload) into a copy with tie_word_embeddings off, and give that as the source"
            )
    if new := sorted(_tokens(folder) - _tokens(base)) if _tokens(folder) else []:
        raise StepError(f"the adapter brings tokens that the source lacks ({', '.join(new[:5])}): {_MERGE_FIRST}")
    return AdapterFacts(
        rank=config["r"],
        alpha=config["lora_alpha"],
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in modules})),
        modules=len(modules),
        parameters=sum(a * b for parts in modules.values() for a, b in _matrices(parts)),
        made_for=made_for,
    )


def _matrices(parts: dict[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes of A and B, whichever kind of module they are for."""
    kind = "lora_embedding_" if "lora_embedding_A" in parts else "lora_"
    return [parts.get(kind + letter, ()) for letter in "AB"]


def _check_module(
    module: str, parts: dict[str, tuple[int, ...]], weight: tuple[int, ...] | None, rank: int, made_for: str
) -> None:
    """
    Raises:
        StepError: A or B is missing, the base has no such module, or a shape does not fit it.
    """
    other = f"it was made for another base ({made_for})"
    if weight is None:
        raise StepError(f"the adapter changes {module}, which the source does not have: {other}")
    outputs, inputs = weight if len(weight) == 2 else (0, 0)
    embedding = "lora_embedding_A" in parts
    first, second = _matrices(parts)
    if not first or not second:
        missing = "lora_B" if first else "lora_A"
        raise StepError(f"{ADAPTER_WEIGHTS} has no {missing} for {module}: fetch or save the adapter again")
    if {first[0], second[-1]} != {rank}:
        raise StepError(
            f"{ADAPTER_CONFIG} says rank {rank} for {module}, but its lora_A is {_text(first)} and its lora_B "
            f"{_text(second)}: the config and the weights are of different adapters"
        )
    fitting = ((rank, outputs), (inputs, rank)) if embedding else ((rank, inputs), (outputs, rank))
    if (first, second) != fitting or parts.get("base_layer", weight) != weight:
        shape = parts.get("base_layer", weight)
        has = f"lora_A {_text(first)} and lora_B {_text(second)}" if shape == weight else f"a weight {_text(shape)}"
        raise StepError(f"the adapter has {has} for {module}, which is {_text(weight)} in the source: {other}")


def _rank(module: str, config: dict[str, Any]) -> int:
    """The rank that adapter_config.json gives a module: as peft, the first pattern that its name ends with."""
    for pattern, rank in (config.get("rank_pattern") or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return rank
        except re.error as error:
            raise StepError(f"{ADAPTER_CONFIG}: rank_pattern {pattern!r} is no pattern ({error})") from None
    return config["r"]


def _tokens(folder: Path) -> set[str]:
    """All tokens of the tokenizer in a folder, empty where it has none."""
    found: set[str] = set()
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            vocabulary = tokenizer["model"].get("vocab") or {}
            found.update(vocabulary if isinstance(vocabulary, dict) else (token for token, _ in vocabulary))
            found.update(token["content"] for token in tokenizer["added_tokens"])
        if (folder / "added_tokens.json").is_file():
            found.update(json.loads((folder / "added_tokens.json").read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"the tokenizer in {folder} is damaged ({error!r}): fetch or save it again") from None
    return found


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) or "nothing"
