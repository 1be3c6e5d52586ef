"""The sessions, the tokenizer and the CPU count. The rest of the project may import this package only."""

import os

# ONNX Runtime reads it when it is imported, whichever module of this package imports it first. Its telemetry has a
# thread, for which a forked child would wait for ever when it ends.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
