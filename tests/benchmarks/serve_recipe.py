"""The usual recipe for serving a Phi ONNX model from MLflow: a wrapper around onnxruntime-genai's own loop.

It answers one prompt after the other, with the runtime's default threads. serve_models.py saves it as a model from
code. The prompts are lists of tokens, and `min_length` fixes the lengths of the answers, so that every server of the
benchmark does the same work.
"""

import json
from typing import Any

import onnxruntime_genai as og
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Recipe(PythonModel):
    """Answers {"prompt": JSON list of tokens, "max_tokens": number} rows."""

    def load_context(self, context: Any) -> None:
        """Load the folder."""
        self.model = og.Model(context.artifacts["onnx"])
        self.tokenizer = og.Tokenizer(self.model)

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """Return the texts of the answers."""
        answers = []
        for prompt, new in zip(model_input["prompt"], model_input["max_tokens"], strict=True):
            tokens = json.loads(prompt)
            search = og.GeneratorParams(self.model)
            length = len(tokens) + int(new)
            search.set_search_options(max_length=length, min_length=length, do_sample=False)
            generator = og.Generator(self.model, search)
            generator.append_tokens(tokens)
            written = []
            while not generator.is_done():
                generator.generate_next_token()
                written.append(int(generator.get_next_tokens()[0]))
            answers.append(self.tokenizer.decode(written))
        return answers


set_model(Recipe())
