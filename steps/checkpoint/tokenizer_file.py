"""Read tokenizer.json with the library that transformers reads it with, or build it from the older formats."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from steps.common.errors import StepError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
_FORMATS = (("tokenizer.model",), ("vocab.json", "merges.txt"))


def has_older_format(folder: Path) -> bool:
    """Return whether a folder has the files of an older format, from which transformers may build tokenizer.json."""
    return any(all((folder / name).is_file() for name in names) for names in _FORMATS)


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
                f"({type(error).__name__}: {cause}): save the tokenizer again where it works, with "
                "AutoTokenizer.from_pretrained(BASE_MODEL).save_pretrained(FOLDER)"
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
