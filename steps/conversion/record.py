"""conversion.json: how an ONNX folder was made, and what was checked, as a typed document."""

from typing import ClassVar, Literal

from steps.checkpoint.manifest import Origin
from steps.common.documents import Document, Part
from steps.common.hashing import FileEntry

CONVERSION = "conversion.json"  # its path in a convert_onnx run


class ConvertedCheckpoint(Origin):
    """The checkpoint that was converted, and the fetch_model run that it came from."""

    run: str


class TokenizerCheck(Part):
    """The comparison of the folder's tokens with transformers'. See tokenizer_check.py."""

    texts: int  # that the logged model reads as transformers does
    genai_differences: tuple[str, ...]  # texts that onnxruntime-genai's own tokenizer reads otherwise


class LogitsCheck(Part):
    """The comparison of the converted model with PyTorch. See logits_check.py."""

    prompts: int
    tokens: int
    equal: int  # tokens that are PyTorch's first choice too
    logit_error: float  # of the worse prompt, relative to the logits' standard deviation
    tolerance: float  # that the error may reach


class Conversion(Document):
    """The whole of conversion.json."""

    written_by: ClassVar[str] = "convert_onnx"
    schema_version: Literal[1] = 1
    checkpoint: ConvertedCheckpoint
    exporter: Literal["genai", "optimum"]
    precision: str
    device: str
    options: dict[str, str]
    limits: tuple[str, ...]  # known limits of onnxruntime-genai with this model, in words
    longrope_switch: int  # tokens from which on LongRoPE's long factors hold; 0 where there is no switch
    versions: dict[str, str]  # package -> version
    seconds: float
    peak_rss_bytes: int
    tokenizer: TokenizerCheck
    check: LogitsCheck
    files: tuple[FileEntry, ...]
    size_bytes: int

    @property
    def options_text(self) -> str:
        """The exporter's options for a person: `block_size=128, use_qdq=true`; empty if there are none."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items())

    @property
    def variant(self) -> str:
        """A name that differs from other conversions of the checkpoint: `onnx-genai-int4-block_size-128`."""
        options = (value if ":" in value else f"{name}-{value}" for name, value in self.options.items())
        return "-".join(["onnx", self.exporter, self.precision, *options])
