"""Load onnxruntime-genai's own tokenizer of a converted folder, without the model's weights.

The logged model does not use it. `convert_onnx` compares it with transformers' for those who run the folder in
onnxruntime-genai.
"""

import base64
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime-genai reads it when it is imported

import onnxruntime_genai as og  # noqa: E402

from steps.chat.runtime.tokenizer import read_config  # noqa: E402

# onnxruntime-genai makes a tokenizer from a loaded model only, and the weights are in ONNX Runtime already. So it loads
# the folder's small files with a graph of one node: input_ids -> Identity -> logits, int64 [1, 1] (opset 17, IR 8).
_STUB = base64.b64decode(
    "CAg6XAodCglpbnB1dF9pZHMSBmxvZ2l0cyIISWRlbnRpdHkSBHN0dWJaGwoJaW5wdXRfaWRzEg4KDAgHEggKAggBCgIIAWIYCgZsb2dpdHMSDgoMCAcSCAoC"
    "CAEKAggBQgQKABAR"
)
_WEIGHT_FILES = ("*.onnx", "*.onnx.data", "*.onnx_data", "*.safetensors")


def load_tokenizer(folder: Path) -> og.Tokenizer:
    """Return onnxruntime-genai's tokenizer of a converted folder. It does not read the weights."""
    with tempfile.TemporaryDirectory() as scratch:
        stub = shutil.copytree(folder, Path(scratch) / "stub", ignore=shutil.ignore_patterns(*_WEIGHT_FILES))
        (stub / read_config(stub)["model"]["decoder"]["filename"]).write_bytes(_STUB)
        return og.Tokenizer(og.Model(str(stub)))
