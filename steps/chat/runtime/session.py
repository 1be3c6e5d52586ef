"""Load the decoder graph of a converted folder into ONNX Runtime.

The KV cache of a session has rows. A row holds the keys and values of one sequence. There are two kinds of graph:

    graph of                    its attention                           session
    model builder, on the CPU   appends to the KV cache in place        SharedBufferSession (shared_buffer.py)
    all others                  returns past and present, concatenated  ConcatenatedSession (concatenated.py)
"""

from pathlib import Path

import onnxruntime as ort
from mlflow.exceptions import MlflowException

from .concatenated import ConcatenatedSession
from .forks import keep_in_forks
from .graph import DecoderGraph
from .onnx_session import OnnxSession
from .shared_buffer import SharedBufferSession
from .tokenizer import read_config

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(folder: Path, threads: int, provider: str, rows: int) -> OnnxSession:
    """Load the graph of a folder that has a genai_config.json.

    Args:
        threads: threads of ONNX Runtime.
        provider: the execution provider, a key of PROVIDERS.
        rows: how many sequences the KV cache can hold at the same time.

    Raises:
        MlflowException: the execution provider is unknown, or this installation of ONNX Runtime does not have it.
    """
    _check_provider(provider)
    config = read_config(folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    path = folder / config["model"]["decoder"]["filename"]
    session = ort.InferenceSession(str(path), options, providers=[PROVIDERS[provider]])
    keep_in_forks(session)
    shares_buffer = config["search"]["past_present_share_buffer"] and provider == "cpu"
    kind = SharedBufferSession if shares_buffer else ConcatenatedSession
    return kind(session, DecoderGraph.of(session, config["model"]), provider, rows)


def _check_provider(provider: str) -> None:
    available = ort.get_available_providers()
    if PROVIDERS.get(provider) in available:
        return
    names = ", ".join(name for name, full_name in PROVIDERS.items() if full_name in available)
    raise MlflowException.invalid_parameter_value(
        f"model config: provider is {provider!r}; this installation of onnxruntime {ort.__version__} has: {names}. "
        "Choose an installed provider, or install the onnxruntime package that has it (onnxruntime-gpu for cuda)"
    )
