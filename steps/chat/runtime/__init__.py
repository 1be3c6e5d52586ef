"""The ONNX Runtime session, the tokenizer and the CPU count. The rest of the project may import this package only."""
