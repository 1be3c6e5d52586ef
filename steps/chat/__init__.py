"""The custom MLflow model: a chat model over ONNX Runtime.

This package travels inside the logged model. So it imports nothing else of this project, and neither torch nor
transformers. In the project its name is `steps.chat`; in a logged model its name is `chat`.
"""
