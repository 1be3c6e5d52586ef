"""onnxruntime-genai's model builder: streamed where it can be, as it comes where `stock=true` says so."""

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
        progress: told the number of the checkpoint's bytes that are converted, as they are.

    Raises:
        StepError: the architecture is not one of the builder's; the weights are not what config.json says; or streaming
            does not fit this version of the builder.
    """
    from onnxruntime_genai.models import builder

    from steps.conversion.streaming import ARCHITECTURES, streaming

    precision, device = choice.precision, choice.device
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stock = not choice.streamed or config["architectures"][0] not in ARCHITECTURES
    options = {name: value for name, value in choice.options.items() if name != "stock"}
    options = shared_embeddings(options, precision, bool(config.get("tie_word_embeddings")))
    check_blocks(options, precision, config)
    pairs = [f"{key}={value}" for key, value in options.items()]
    where = ("", str(folder), str(out), precision, device, str(out.parent / "builder-cache"))
    try:
        parsed = builder.parse_extra_options(*where, pairs)
        if stock:
            builder.create_model(*where, **parsed)
        else:
            with streaming(builder, progress):
                builder.create_model(*where, **parsed)
    except NotImplementedError as error:  # the builder's word for an architecture, or options together, that it lacks
        raise StepError(
            f"onnxruntime-genai {version('onnxruntime-genai')} can't convert {config['architectures'][0]} so: {error} "
            f"Use a {' or '.join(ARCHITECTURES)} checkpoint, other options, or exporter=optimum"
        ) from None
    except (StepError, OSError, MemoryError):
        raise
    except Exception as error:
        if stock:
            raise
        raise StepError(
            f"streaming conversion failed with onnxruntime-genai {version('onnxruntime-genai')}, onnx-ir "
            f"{version('onnx-ir')} ({type(error).__name__}: {error}): convert with options=stock=true, which needs "
            "several times the memory, and report it"
        ) from error


def shared_embeddings(options: dict[str, str], precision: str, tied: bool) -> dict[str, str]:
    """The options, with the embedding kept apart from the head where the builder cannot share them.

    For a model that ties the two, onnxruntime-genai 0.15.2 shares the quantised matrix. In int8, and by the default
    algorithm in int4 without symmetry or with a head in int8, it then looks for the matrix under another name than it
    gave it, and ONNX Runtime refuses the graph; in the QDQ format the quantiser fails.

    Raises:
        StepError: the options ask for just that.
    """
    default = precision == "int4" and options.get("algo_config", "default") == "default"
    causes = {
        "precision int8": precision == "int8",
        "is_symmetric=false": default and options.get("is_symmetric") == "false",
        "last_matmul:int8": default and "last_matmul:int8" in options.get("matmul_mixed_precision", ""),
        "use_qdq=true": options.get("use_qdq") == "true",
    }
    cause = next((cause for cause, applies in causes.items() if applies), None)
    if not tied or not cause:
        return options
    if options.get("shared_embeddings") == "true":
        raise StepError(
            f"options: shared_embeddings=true does not work with {cause}: leave it out, and the embedding is kept apart"
        )
    return options | {"shared_embeddings": "false"}


def check_blocks(options: dict[str, str], precision: str, config: dict[str, Any]) -> None:
    """Refuse an odd number of blocks where zero points are of 4 bits: ONNX Runtime cannot store those in whole bytes.

    Raises:
        StepError: the algorithm stores zero points of 4 bits, and the block size divides a width oddly.
    """
    algorithm = options.get("algo_config", "default")
    zero_points = algorithm.startswith("k_quant") or (
        algorithm.startswith("rtn") and options.get("is_symmetric") == "false"
    )
    if precision != "int4" or not zero_points:
        return
    size = int(options.get("block_size", "32"))
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for width in {config["hidden_size"], config["intermediate_size"], head * config["num_attention_heads"]}:
        if -(-width // size) % 2:
            raise StepError(
                f"options: algo_config={algorithm} cannot quantise a matrix of {width} inputs in blocks of {size}: "
                f"they make {-(-width // size)} blocks, and it needs an even number; choose another block_size"
            )
