"""Run onnxruntime-genai's model builder: in bounded memory, or as it comes with the option `stock=true`."""

import contextlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from steps.common.errors import StepError
from steps.conversion.options import ConversionOptions


def build(
    folder: Path,
    out: Path,
    choice: ConversionOptions,
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Convert a checkpoint with the builder.

    Args:
        progress: called with the number of checkpoint bytes of each piece that was converted in bounded memory.

    Raises:
        StepError: the builder does not know the architecture or the combination of options; the weights contradict
            config.json; or this version of the builder does not fit streaming.
    """
    # Both imports load torch, which takes seconds.
    from onnxruntime_genai.models import builder

    from steps.conversion.streaming import ARCHITECTURES, streaming

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = config["architectures"][0]
    streamed = choice.streamed and architecture in ARCHITECTURES
    options = {name: value for name, value in choice.options.items() if name != "stock"}
    options = with_separate_embedding(options, choice.precision, config)
    check_blocks(options, choice.precision, config)
    pairs = [f"{name}={value}" for name, value in options.items()]
    arguments = ("", str(folder), str(out), choice.precision, choice.device, str(out.parent / "builder-cache"))
    try:
        parsed = builder.parse_extra_options(*arguments, pairs)
        with streaming(builder, progress) if streamed else contextlib.nullcontext():
            builder.create_model(*arguments, **parsed)
    except NotImplementedError as error:  # the builder lacks the architecture, or the options together
        raise StepError(
            f"onnxruntime-genai {version('onnxruntime-genai')} cannot convert {architecture} with these options: "
            f"{error} Use a {' or '.join(ARCHITECTURES)} checkpoint, other options, or exporter=optimum"
        ) from None
    except (StepError, OSError, MemoryError):
        raise
    except Exception as error:
        if not streamed:
            raise
        raise StepError(
            f"streaming conversion failed with onnxruntime-genai {version('onnxruntime-genai')} and onnx-ir "
            f"{version('onnx-ir')} ({type(error).__name__}: {error}): convert with options=stock=true, which needs "
            "several times the memory, and report this error"
        ) from error


def separate_embedding_cause(options: dict[str, str], precision: str, config: dict[str, Any]) -> str:
    """Return why the builder cannot share the matrix of a tied model, in words; empty if it can, or need not.

    onnxruntime-genai 0.15.2 shares the quantised matrix between the embedding and the head of a tied model. It then
    looks for the matrix under a wrong name, and ONNX Runtime rejects the graph:

    - in int8
    - in int4 with the default algorithm, if the matrix is asymmetric or the head is in int8

    If the hidden size is no multiple of the block size, ONNX Runtime fails in a Reshape: the embedding takes the matrix
    without the padding of its last blocks. In the QDQ format the quantiser fails.
    """
    if not config.get("tie_word_embeddings") or options.get("shared_embeddings") == "false":
        return ""
    default = precision == "int4" and options.get("algo_config", "default") == "default"
    hidden_size, block_size = config["hidden_size"], int(options.get("block_size", "32"))
    causes = {
        "precision int8": precision == "int8",
        "is_symmetric=false": default and options.get("is_symmetric") == "false",
        "last_matmul:int8": default and "last_matmul:int8" in options.get("matmul_mixed_precision", ""),
        "use_qdq=true": options.get("use_qdq") == "true",
        f"blocks of {block_size} in rows of {hidden_size}": precision == "int4" and hidden_size % block_size != 0,
    }
    return next((cause for cause, applies in causes.items() if applies), "")


def with_separate_embedding(options: dict[str, str], precision: str, config: dict[str, Any]) -> dict[str, str]:
    """Return the options, with shared_embeddings=false added if the builder cannot share the matrix of a tied model.

    Raises:
        StepError: the options ask for a shared matrix that the builder cannot share.
    """
    cause = separate_embedding_cause(options, precision, config)
    if not cause:
        return options
    if options.get("shared_embeddings") == "true":
        raise StepError(
            f"options: shared_embeddings=true does not work with {cause}: leave it out, and the embedding becomes a "
            "matrix of its own"
        )
    return options | {"shared_embeddings": "false"}


def check_blocks(options: dict[str, str], precision: str, config: dict[str, Any]) -> None:
    """Raise StepError if an algorithm with 4-bit zero points would cut a matrix into an odd number of blocks.

    ONNX Runtime stores two zero points in a byte.
    """
    algorithm = options.get("algo_config", "default")
    has_zero_points = algorithm.startswith("k_quant") or (
        algorithm.startswith("rtn") and options.get("is_symmetric") == "false"
    )
    if precision != "int4" or not has_zero_points:
        return
    size = int(options.get("block_size", "32"))
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for width in {config["hidden_size"], config["intermediate_size"], head * config["num_attention_heads"]}:
        blocks = -(-width // size)
        if blocks % 2:
            raise StepError(
                f"options: algo_config={algorithm} cannot quantise a matrix of {width} inputs in blocks of {size}: "
                f"they make {blocks} blocks, and the algorithm needs an even number; choose another block_size"
            )
