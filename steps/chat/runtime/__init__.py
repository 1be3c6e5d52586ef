"""The ONNX Runtime session, the tokenizer, the CPUs: all that the rest of this project may import."""
