"""The custom MLflow model: a chat model over ONNX Runtime GenAI.

This package travels inside the logged model, so it imports nothing else of this project, and neither torch nor
transformers. Inside the project it is `steps.chat`; inside a logged model it is `chat`.
"""
