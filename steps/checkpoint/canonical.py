"""The canonical form of a checkpoint: the one form that every step after fetch_model reads.

fetch_model decides what the form is, and the manifest describes it. Each later step makes it in its scratch folder:

    source folder                       canonical folder
    model-0000N-of-M.safetensors  --->  a link to each file that holds weights, and to no other
    config.json                   --->  the fields that transformers 4.57 reads, translated from transformers 5's
    generation_config.json        --->  the token IDs, with every end token (EOS) that any file knows
    tokenizer_config.json         --->  the fields that transformers 4.57 reads
    tokenizer.json                --->  a link, or a file that transformers builds from an older format
    chat_template.jinja, ...      --->  links

So the transformers flavor, the model builder and the reference of the evaluation read the same files.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.checkpoint.canonical_config import translate_config, translate_generation
from steps.checkpoint.canonical_tokenizer import (
    TOKENIZER,
    end_token_text,
    has_chat_template,
    largest_token_id,
    token_id,
    translate_tokenizer_config,
)
from steps.checkpoint.checks import is_allowed
from steps.checkpoint.headers import INDEX, SINGLE, read_config, weight_files
from steps.checkpoint.json_files import find_json_object, read_json_object
from steps.checkpoint.slow_tokenizer import build_tokenizer, can_build
from steps.common.errors import StepError

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"


@dataclass(frozen=True)
class EndTokens:
    """The tokens that end an answer (EOS), and the files that name them."""

    ids: tuple[int, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Canonical:
    """What the canonical folder of a checkpoint holds."""

    written: dict[str, dict[str, Any]]  # file name -> JSON content
    linked: tuple[str, ...]  # names of files that stay as they are
    ignored: tuple[str, ...]  # names of files that have no part in the checkpoint
    changes: tuple[str, ...]  # in words
    end_tokens: EndTokens
    has_chat_template: bool
    builds_tokenizer: bool  # whether transformers builds tokenizer.json from an older format

    def write(self, source: Path, target: Path) -> None:
        """Make the canonical folder `target`, with links to the files in the folder `source`."""
        target.mkdir(parents=True)
        for name in self.linked:
            (target / name).symlink_to((source / name).resolve())
        for name, content in self.written.items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (target / name).write_text(text, encoding="utf-8")
        if self.builds_tokenizer:
            build_tokenizer(target)


def canonical_form(folder: Path) -> Canonical:
    """Return the canonical form of the checkpoint in a folder.

    Raises:
        StepError: a file is damaged or can name code, or the checkpoint has no tokenizer.
    """
    config = translate_config(read_config(folder))
    tokenizer_config = translate_tokenizer_config(find_json_object(folder / TOKENIZER_CONFIG))
    builds_tokenizer = not (folder / TOKENIZER).is_file()
    if builds_tokenizer and not can_build(folder):
        raise StepError(
            f"the checkpoint has no {TOKENIZER}: save the tokenizer beside the model with "
            "AutoTokenizer.from_pretrained(BASE_MODEL).save_pretrained(FOLDER)"
        )
    tokenizer = find_json_object(folder / TOKENIZER)
    generation_file = find_json_object(folder / GENERATION)
    end_tokens = _end_tokens(folder, config.content, generation_file, tokenizer_config.content, tokenizer)
    generation = translate_generation(generation_file, config.content, end_tokens.ids)
    written = {CONFIG: config.content, GENERATION: generation.content, TOKENIZER_CONFIG: tokenizer_config.content}
    weights = [file.name for file in weight_files(folder)]
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and is_allowed(path.name))
    ignored = [name for name in names if name.endswith(".safetensors") and name not in weights]
    ignored += [INDEX] if INDEX in names and weights == [SINGLE] else []
    plain = [name for name in names if name not in written and name not in ignored]
    for name in plain:
        if name.endswith(".json"):
            read_json_object(folder / name)
    return Canonical(
        written=written,
        linked=tuple(plain),
        ignored=tuple(ignored),
        changes=(*config.changes, *generation.changes, *tokenizer_config.changes),
        end_tokens=end_tokens,
        has_chat_template=has_chat_template(folder, tokenizer_config.content),
        builds_tokenizer=builds_tokenizer,
    )


def _end_tokens(
    folder: Path,
    config: dict[str, Any],
    generation: dict[str, Any],
    tokenizer_config: dict[str, Any],
    tokenizer: dict[str, Any],
) -> EndTokens:
    """Return the union of the end tokens that generation_config.json, config.json and the tokenizer name.

    vLLM ends an answer at any of them too (vllm/config/model.py, try_get_generation_config; the tokenizer's EOS).
    """
    text = end_token_text(folder, tokenizer_config)
    of_tokenizer = token_id(tokenizer, text) if text and tokenizer else None
    named = {
        GENERATION: _as_ids(generation.get("eos_token_id"), GENERATION),
        CONFIG: _as_ids(config.get("eos_token_id"), CONFIG),
        "the tokenizer": () if of_tokenizer is None else (of_tokenizer,),
    }
    ids = tuple(dict.fromkeys(token for tokens in named.values() for token in tokens))
    if not ids:
        raise StepError(
            f"no file of the checkpoint names an end token (EOS), so answers would not end: add eos_token_id to {GENERATION}"
        )
    return EndTokens(ids, tuple(source for source, tokens in named.items() if tokens))


def _as_ids(value: Any, file: str) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in values):
        raise StepError(f"{file}: eos_token_id is {value!r:.80}; expected a token ID or a list of token IDs")
    return tuple(values)


def check_vocabulary(folder: Path, embedding_rows: int) -> None:
    """Raise StepError if the tokenizer has a token that the embedding has no row for."""
    if not (folder / TOKENIZER).is_file():
        return
    largest = largest_token_id(read_json_object(folder / TOKENIZER))
    if largest >= embedding_rows:
        raise StepError(
            f"the tokenizer has token IDs up to {largest}, and the embedding has {embedding_rows} rows: call "
            "model.resize_token_embeddings(len(tokenizer)) where the model was trained, and save it again"
        )
