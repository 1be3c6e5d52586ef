"""The canonical form of a checkpoint: the one form that every step after fetch_model reads.

fetch_model decides what the form is, and the manifest describes it. Each later step makes it in its scratch folder:

    source folder                       canonical folder
    model-0000N-of-M.safetensors  --->  a link to each file that holds weights, and to no other
    config.json                   --->  the fields that transformers 4.57 reads, translated from transformers 5's
    generation_config.json        --->  the token IDs, with every end token (EOS) that any file knows
    tokenizer_config.json, ...    --->  the fields that transformers 4.57 reads
    tokenizer.json                --->  a link, or a file that transformers builds from an older format
    chat_template.jinja, ...      --->  links; a file with a byte order mark is written without it

So the transformers flavor, the model builder and the reference of the evaluation read the same files.
"""

import codecs
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.chat.runtime.chat_template import turn_end_token
from steps.checkpoint.canonical_config import Translated, translate_config, translate_generation
from steps.checkpoint.canonical_tokenizer import (
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    end_token_text,
    translate_special_tokens,
    translate_tokenizer_config,
)
from steps.checkpoint.checks import is_allowed
from steps.checkpoint.end_tokens import GENERATION, EndTokens, find_end_tokens
from steps.checkpoint.headers import INDEX, SINGLE, read_config, weight_files
from steps.checkpoint.hidden_code import refuse_code
from steps.checkpoint.json_files import find_json_object, read_json_object
from steps.checkpoint.tokenizer_file import TOKENIZER, build_tokenizer, check_older_format, parse_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, TEMPLATE = "config.json", "chat_template.jinja"


@dataclass(frozen=True)
class Settings:
    """All that the canonical folder holds beside the weights."""

    config: dict[str, Any]  # config.json
    written: dict[str, str]  # file name -> text of each file that differs from the source's
    linked: tuple[str, ...]  # names of files that stay as they are
    changes: tuple[str, ...]  # in words
    tokenizer: "Tokenizer"
    end_tokens: EndTokens
    has_chat_template: bool
    builds_tokenizer: bool  # whether transformers built tokenizer.json from an older format

    def write(self, source: Path, target: Path) -> None:
        """Make the canonical folder `target` without its weights, with links to the files in the folder `source`."""
        _write(source, target, self.linked, self.written)


@dataclass(frozen=True)
class Canonical:
    """What the canonical folder of a checkpoint holds."""

    settings: Settings
    weights: tuple[str, ...]  # names of the files of weights, and of their index
    ignored: tuple[str, ...]  # names of files that have no part in the checkpoint

    def write(self, source: Path, target: Path) -> None:
        """Make the canonical folder `target`, with links to the files in the folder `source`."""
        self.settings.write(source, target)
        for name in self.weights:
            if text := _text_without_mark(source / name):
                (target / name).write_text(text, encoding="utf-8")
            else:
                (target / name).symlink_to((source / name).resolve())


def canonical_form(folder: Path, end_tokens: EndTokens | None = None) -> Canonical:
    """Return the canonical form of the checkpoint in a folder.

    Args:
        end_tokens: what the manifest states; None to find the end tokens, for which the chat template is rendered.
            Before that it must have passed check_chat_template (template_check.py).

    Raises:
        StepError: a file is damaged or can name code, or the checkpoint has no tokenizer.
    """
    settings = read_settings(folder, end_tokens)
    weights = [file.name for file in weight_files(folder)]
    if weights != [SINGLE]:
        weights.append(INDEX)
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    ignored = [name for name in names if name.endswith(".safetensors") or name == INDEX]
    return Canonical(settings, tuple(weights), tuple(name for name in ignored if name not in weights))


def read_settings(folder: Path, end_tokens: EndTokens | None = None) -> Settings:
    """Return the canonical form of a checkpoint without its weights, which the folder need not have.

    Args:
        end_tokens: as in `canonical_form`.

    Raises:
        StepError: a file is damaged or can name code, or the checkpoint has no tokenizer.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and is_allowed(path.name))
    linked = [name for name in names if not name.endswith(".safetensors") and name != INDEX]
    written = {name: text for name in linked if (text := _text_without_mark(folder / name)) is not None}
    config, tokenizer_config, special_tokens = translations = _translate(folder)
    for name, translated in zip((CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS), translations, strict=True):
        if name in linked:
            written[name] = _json_text(translated.content)
    tokenizer, built = _tokenizer(folder, linked, written)
    generation_file = find_json_object(folder / GENERATION)
    has_template = TEMPLATE in linked or bool(tokenizer_config.content.get("chat_template"))
    end_tokens = end_tokens or find_end_tokens(
        generation_file,
        config.content,
        tokenizer,
        end_token_text(tokenizer_config.content, special_tokens.content),
        turn_end_token(folder) if has_template else None,
    )
    generation = translate_generation(generation_file, config.content, end_tokens.ids)
    written[GENERATION] = _json_text(generation.content)
    return Settings(
        config=config.content,
        written=written | built,
        linked=tuple(name for name in linked if name not in written),
        changes=(*config.changes, *generation.changes, *tokenizer_config.changes, *special_tokens.changes),
        tokenizer=tokenizer,
        end_tokens=end_tokens,
        has_chat_template=has_template,
        builds_tokenizer=bool(built),
    )


def check_json_files(folder: Path) -> None:
    """Raise StepError if a JSON file of the settings is damaged or can name code. The chat template is not rendered."""
    _translate(folder)
    refuse_code(find_json_object(folder / GENERATION), GENERATION)


def _translate(folder: Path) -> tuple[Translated, Translated, Translated]:
    """Return the translated config.json, tokenizer_config.json and special_tokens_map.json."""
    return (
        translate_config(read_config(folder)),
        translate_tokenizer_config(find_json_object(folder / TOKENIZER_CONFIG)),
        translate_special_tokens(find_json_object(folder / SPECIAL_TOKENS)),
    )


def _tokenizer(folder: Path, linked: list[str], written: dict[str, str]) -> tuple["Tokenizer", dict[str, str]]:
    """Return the tokenizer, and tokenizer.json by its name if transformers built it."""
    if TOKENIZER in linked:
        read_json_object(folder / TOKENIZER)  # says where the JSON is damaged
        return parse_tokenizer((folder / TOKENIZER).read_text(encoding="utf-8-sig")), {}
    check_older_format(folder)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "canonical")
        _write(folder, target, [name for name in linked if name not in written], written)
        text = build_tokenizer(target)
    return parse_tokenizer(text), {TOKENIZER: text}


def _write(source: Path, target: Path, linked: list[str] | tuple[str, ...], written: dict[str, str]) -> None:
    target.mkdir(parents=True)
    for name in linked:
        (target / name).symlink_to((source / name).resolve())
    for name, text in written.items():
        (target / name).write_text(text, encoding="utf-8")


def _text_without_mark(file: Path) -> str | None:
    """Return the text of a JSON file or a template that begins with a byte order mark; None for any other file."""
    if file.suffix not in (".json", ".jinja"):
        return None
    with file.open("rb") as stream:
        if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return None
    return file.read_text(encoding="utf-8-sig")


def _json_text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
