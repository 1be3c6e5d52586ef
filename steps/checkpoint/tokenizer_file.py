"""Read tokenizer.json with the library that transformers reads it with, or build it from the older formats."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from steps.common.errors import StepError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
_OLDER_FORMAT = ("vocab.json", "merges.txt")
_SENTENCEPIECE = "tokenizer.model"
_SAVE_AGAIN = "AutoTokenizer.from_pretrained(BASE_MODEL).save_pretrained(FOLDER)"


def check_older_format(folder: Path) -> None:
    """Raise StepError if a folder lacks the files from which transformers may build tokenizer.json."""
    if all((folder / name).is_file() for name in _OLDER_FORMAT):
        return
    if (folder / _SENTENCEPIECE).is_file():
        raise StepError(
            f"the checkpoint has no {TOKENIZER}, and its {_SENTENCEPIECE} can be converted only with the package "
            "sentencepiece, which this project does not use: save the tokenizer again where sentencepiece is "
            f"installed, with {_SAVE_AGAIN}"
        )
    raise StepError(f"the checkpoint has no {TOKENIZER}: save the tokenizer beside the model with {_SAVE_AGAIN}")


def parse_tokenizer(text: str) -> "Tokenizer":
    """Return the tokenizer that the text of tokenizer.json describes.

    Raises:
        StepError: the text does not describe a tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        cause = " ".join(str(error).split())[:200]
        raise StepError(f"{TOKENIZER} is damaged ({cause}): fetch or save the checkpoint again") from None


def build_tokenizer(folder: Path) -> str:
    """Return the text of the tokenizer.json that transformers builds from the files of an older format.

    Args:
        folder: the canonical form of a checkpoint, without tokenizer.json.

    Raises:
        StepError: transformers cannot convert the files.
    """
    from transformers import AutoTokenizer
    from transformers import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True)
            tokenizer.backend_tokenizer.save(f"{scratch}/{TOKENIZER}")
        except Exception as error:  # the converters raise errors of many kinds
            cause = " ".join(str(error).split())[:200]
            raise StepError(
                f"the checkpoint has no {TOKENIZER}, and transformers cannot build it from the older files here "
                f"({type(error).__name__}: {cause}): save the tokenizer again where it works, with {_SAVE_AGAIN}"
            ) from None
        return Path(scratch, TOKENIZER).read_text(encoding="utf-8")


def check_vocabulary(tokenizer: "Tokenizer", embedding_rows: int) -> None:
    """Raise StepError if the tokenizer has a token that the embedding has no row for."""
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= embedding_rows:
        raise StepError(
            f"the tokenizer has token IDs up to {largest}, and the embedding has {embedding_rows} rows: call "
            "model.resize_token_embeddings(len(tokenizer)) where the model was trained, and save it again"
        )
