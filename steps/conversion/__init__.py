"""From a checkpoint to ONNX: two exporters, one result that ONNX Runtime GenAI runs."""
