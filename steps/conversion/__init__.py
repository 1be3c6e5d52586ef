"""From a checkpoint to ONNX: two exporters, one kind of result, which ONNX Runtime GenAI loads."""
