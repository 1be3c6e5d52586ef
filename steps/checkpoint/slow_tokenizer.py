"""Build tokenizer.json from the older formats of a tokenizer, by transformers' own converters."""

from pathlib import Path

from steps.common.errors import StepError

_FORMATS = (("tokenizer.model",), ("vocab.json", "merges.txt"))


def can_build(folder: Path) -> bool:
    """Return whether a folder has the files of an older format."""
    return any(all((folder / name).is_file() for name in names) for names in _FORMATS)


def build_tokenizer(folder: Path) -> None:
    """Write tokenizer.json into a folder that has the files of an older format.

    Raises:
        StepError: transformers cannot convert the files.
    """
    from transformers import AutoTokenizer
    from transformers import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    except Exception as error:  # the converters raise errors of many kinds
        cause = " ".join(str(error).split())[:200]
        raise StepError(
            f"the checkpoint has no tokenizer.json, and transformers cannot build it from the older files ({cause}): "
            "save the tokenizer again with AutoTokenizer.from_pretrained(BASE_MODEL).save_pretrained(FOLDER)"
        ) from None
