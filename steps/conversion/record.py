"""conversion.json: how an ONNX folder was made, and what was checked, as a typed document."""

from typing import ClassVar, Literal

from steps.checkpoint.manifest import Origin
from steps.common.disk import size_text
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
    """The comparison of the converted model with PyTorch, which computes with the same weights. See logits_check.py.

    An error of logits is their root mean square difference, relative to the standard deviation of PyTorch's.
    """

    prompts: int
    tokens: int  # of the greedy answers
    equal: int  # tokens that are the first choice of the checkpoint's weights too, in PyTorch
    weight_error: float  # of the worst weight, from the checkpoint's; root mean square in steps of its rounding
    logit_error: float  # of the worse prompt, with activations that are not rounded
    tolerance: float  # that logit_error may reach
    activation_error: float  # of the worse prompt, with activations rounded as they are when the model is served
    unreadable: str  # why the weights were not read back, and logits compared with the checkpoint's; empty if they were


class Rounding(Part):
    """What rounding costs: the served model against the checkpoint in PyTorch, on the beginning of a text."""

    tokens: int
    kl_mean: float  # KL divergence from PyTorch's distribution of the next token, in nats
    same_top: float  # share of the tokens with the same most likely next token


class Conversion(Document):
    """The whole of conversion.json."""

    written_by: ClassVar[str] = "convert_onnx"
    schema_version: Literal[2] = 2
    checkpoint: ConvertedCheckpoint
    exporter: Literal["genai", "optimum"]
    precision: str
    device: str
    options: dict[str, str]
    notes: tuple[str, ...]  # what the conversion did otherwise than its options say, in words
    limits: tuple[str, ...]  # known limits of onnxruntime-genai with this model, in words
    longrope_switch: int  # tokens from which on LongRoPE's long factors hold; 0 where there is no switch
    versions: dict[str, str]  # package -> version
    seconds: float
    peak_rss_bytes: int
    tokenizer: TokenizerCheck
    check: LogitsCheck
    rounding: Rounding
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

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a logged model: which checkpoint it has, and how that was converted."""
        return {
            "wrapper": f"onnx-{self.exporter}",
            "precision": self.precision,
            "options": self.options_text or "none",
            "checkpoint": self.checkpoint.name,
            "checkpoint_commit": self.checkpoint.commit or "none",
            "checkpoint_run": self.checkpoint.run,
        }

    @property
    def summary(self) -> str:
        """What was made and what it costs, for a person, in one line."""
        check, rounding = self.check, self.rounding
        unread = ("its weights could not be read back, see conversion.json",) if check.unreadable else ()
        line = (
            f"{self.precision} by {self.exporter}, {size_text(self.size_bytes)}, "
            f"{check.equal} of {check.tokens} first tokens as in PyTorch, KL {rounding.kl_mean:g}, "
            f"same top token {rounding.same_top:.0%}"
        )
        return "; ".join([line, *self.notes, *unread])
