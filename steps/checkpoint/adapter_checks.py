"""Check that a LoRA adapter fits a checkpoint: every module exists, every shape fits. Only headers are read."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.checkpoint.adapter import (
    ADAPTER_WEIGHTS,
    MERGE_FIRST,
    PREFIX,
    AdapterConfig,
    check_adapter_files,
    read_adapter_config,
)
from steps.checkpoint.checks import ADAPTER_CONFIG, shape_text
from steps.checkpoint.headers import read_config, read_header, read_weights
from steps.common.errors import StepError

_TENSOR = re.compile(
    re.escape(PREFIX)
    + r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|base_layer)"
    r"(?:\.weight)?"
)
_TIED = ("embed_tokens", "lm_head")  # the modules that share one matrix if tie_word_embeddings is true

Shape = tuple[int, ...]


@dataclass(frozen=True)
class AdapterFacts:
    """What the config and the headers of an adapter say."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]  # the last parts of the modules' names
    modules: int  # the number of modules that the adapter changes
    parameters: int
    made_for: str  # the base that the adapter names


@dataclass(frozen=True)
class _Module:
    """A module that the adapter changes, and the shapes of its tensors by part, such as lora_A."""

    name: str
    parts: dict[str, Shape] = field(default_factory=dict)

    @property
    def is_embedding(self) -> bool:
        return "lora_embedding_A" in self.parts

    @property
    def a(self) -> Shape:
        """The shape of matrix A; empty if it is missing."""
        return self.parts.get("lora_embedding_A" if self.is_embedding else "lora_A", ())

    @property
    def b(self) -> Shape:
        """The shape of matrix B; empty if it is missing."""
        return self.parts.get("lora_embedding_B" if self.is_embedding else "lora_B", ())


def check_adapter(folder: Path, base: Path) -> AdapterFacts:
    """Return the facts of an adapter that can be merged into a checkpoint.

    Args:
        folder: the adapter.
        base: the checkpoint.

    Raises:
        StepError: the adapter or the checkpoint is damaged, or they do not fit; the line names the module or field.
    """
    check_adapter_files(path.name for path in folder.iterdir())
    config, base_config = read_adapter_config(folder), read_config(base)
    modules = _read_modules(folder)
    if "quantization_config" in base_config:
        raise StepError("the source is quantised, and no adapter can be merged into it: give the unquantised model")
    shapes = read_weights(base).shapes
    for module in modules:
        _check_module(module, shapes.get(f"{module.name}.weight"), config)
        _check_not_tied(module, base_config)
    _check_tokens(folder, base)
    return AdapterFacts(
        rank=config.rank,
        alpha=config.alpha,
        target_modules=tuple(sorted({module.name.rpartition(".")[2] for module in modules})),
        modules=len(modules),
        parameters=sum(rows * columns for module in modules for rows, columns in (module.a, module.b)),
        made_for=config.made_for,
    )


def _read_modules(folder: Path) -> list[_Module]:
    """Return the modules that the names of the adapter's tensors name.

    Raises:
        StepError: a tensor does not belong to LoRA, or there are no tensors.
    """
    modules: dict[str, _Module] = {}
    for name, tensor in read_header(folder / ADAPTER_WEIGHTS).tensors.items():
        match = _TENSOR.fullmatch(name)
        if not match:
            raise StepError(f"{ADAPTER_WEIGHTS} contains {name}, which is not a LoRA tensor: {MERGE_FIRST}")
        module = modules.setdefault(match["module"], _Module(match["module"]))
        module.parts[match["part"]] = tensor.shape
    if not modules:
        raise StepError(f"{ADAPTER_WEIGHTS} contains no tensors: save the adapter again with peft (save_pretrained)")
    return list(modules.values())


def _check_module(module: _Module, weight: Shape | None, config: AdapterConfig) -> None:
    """Raise StepError if a module's A or B is missing, or does not fit the weight of the base.

    Args:
        weight: the shape in the base; None if the base has no such module.
    """
    for_another_base = f"it was made for another base ({config.made_for})"
    if weight is None:
        raise StepError(f"the adapter changes {module.name}, which the source does not have: {for_another_base}")
    if not module.a or not module.b:
        missing = "lora_B" if module.a else "lora_A"
        raise StepError(f"{ADAPTER_WEIGHTS} has no {missing} for {module.name}: fetch or save the adapter again")
    rank = _rank(module, config)
    matrices = f"lora_A {shape_text(module.a)} and lora_B {shape_text(module.b)}"
    if {module.a[0], module.b[-1]} != {rank}:
        raise StepError(
            f"{ADAPTER_CONFIG} says rank {rank} for {module.name}, but the weights have {matrices}: "
            "the config and the weights belong to different adapters"
        )
    saved_base = module.parts.get("base_layer", weight)  # peft saves the whole embedding beside its A and B
    if saved_base != weight:
        matrices = f"a weight {shape_text(saved_base)}"
    if saved_base != weight or (module.a, module.b) != _fitting_shapes(module, weight, rank):
        raise StepError(
            f"the adapter has {matrices} for {module.name}, which is {shape_text(weight)} in the source: "
            f"{for_another_base}"
        )


def _fitting_shapes(module: _Module, weight: Shape, rank: int) -> tuple[Shape, Shape]:
    """Return the shapes that A and B need for a weight [outputs, inputs], or for an embedding [vocabulary, size]."""
    rows, columns = weight if len(weight) == 2 else (0, 0)
    return ((rank, rows), (columns, rank)) if module.is_embedding else ((rank, columns), (rows, rank))


def _rank(module: _Module, config: AdapterConfig) -> int:
    """Return the rank of a module. As in peft, the first pattern that the module's name ends with counts."""
    for pattern, rank in config.rank_pattern.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module.name):
                return rank
        except re.error as error:
            raise StepError(
                f"{ADAPTER_CONFIG}: rank_pattern {pattern!r} is not a regular expression ({error}): "
                "save the adapter again with peft (save_pretrained)"
            ) from None
    return config.rank


def _check_not_tied(module: _Module, base_config: dict[str, Any]) -> None:
    """Raise StepError if the base uses the module's matrix for its embedding and for its head."""
    if base_config.get("tie_word_embeddings") and module.name.endswith(_TIED):
        raise StepError(
            f"the adapter changes {module.name}, which the source shares between its embedding and its head: merge the "
            "adapter with peft (merge_and_unload) into a copy with tie_word_embeddings off, and give the copy as the "
            "source"
        )


def _check_tokens(folder: Path, base: Path) -> None:
    """Raise StepError if the adapter's tokenizer has tokens that the base lacks. Many adapters have no tokenizer."""
    tokens = _tokens(folder)
    added = sorted(tokens - _tokens(base)) if tokens else []
    if added:
        raise StepError(f"the adapter adds tokens that the source lacks ({', '.join(added[:5])}): {MERGE_FIRST}")


def _tokens(folder: Path) -> set[str]:
    """Return all tokens of the tokenizer in a folder; none if there is no tokenizer."""
    tokens: set[str] = set()
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            vocabulary = tokenizer["model"].get("vocab") or {}
            # BPE has a dictionary token -> ID; Unigram has a list of pairs (token, score).
            tokens.update(vocabulary if isinstance(vocabulary, dict) else (token for token, _ in vocabulary))
            tokens.update(token["content"] for token in tokenizer["added_tokens"])
        if (folder / "added_tokens.json").is_file():
            tokens.update(json.loads((folder / "added_tokens.json").read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"the tokenizer in {folder} is damaged ({error!r}): fetch or save it again") from None
    return tokens
