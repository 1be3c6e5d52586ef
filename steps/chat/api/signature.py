"""The signatures that the model is logged with.

They have no inputs. MLflow drops every column that a signature lacks, warns at most, and repeats the whole request when
a value has another type. Without inputs it passes the request on as it is, and api.requests refuses what is wrong.
Unity Catalog asks for a signature with outputs, and these have outputs.
"""

from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Object, ParamSchema, ParamSpec, Property, Schema, TensorSpec

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"


def signature(task: str, max_tokens: int) -> ModelSignature:
    """Return the signature of a task.

    Args:
        max_tokens: the limit of a completion if the caller gives none.
    """
    return _completions(max_tokens) if task == COMPLETIONS else _chat()


def _chat() -> ModelSignature:
    """Return the columns that every response has: Spark reads each column of a signature in each row."""
    text, count = DataType.string, DataType.long
    message = Object([Property("role", text), Property("content", text, required=False)])
    choice = Object([Property("index", count), Property("finish_reason", text), Property("message", message)])
    usage = Object([Property(name, count) for name in ("prompt_tokens", "completion_tokens", "total_tokens")])
    return ModelSignature(
        outputs=Schema(
            [
                ColSpec(text, "id"),
                ColSpec(text, "object"),
                ColSpec(count, "created"),
                ColSpec(text, "model"),
                ColSpec(Array(choice), "choices"),
                ColSpec(usage, "usage"),
            ]
        )
    )


def _completions(max_tokens: int) -> ModelSignature:
    results: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "text", required=False),
        ColSpec(DataType.string, "finish_reason", required=False),
        ColSpec(DataType.long, "prompt_tokens", required=False),
        ColSpec(DataType.long, "completion_tokens", required=False),
        ColSpec(DataType.string, "error", required=False),
    ]
    params = [
        ParamSpec("max_tokens", DataType.long, max_tokens),
        ParamSpec("temperature", DataType.double, 0.0),
        ParamSpec("top_p", DataType.double, 1.0),
        ParamSpec("top_k", DataType.long, 0),
        ParamSpec("stop", DataType.string, [], shape=(-1,)),
        ParamSpec("seed", DataType.long, -1),  # -1: none
        ParamSpec("frequency_penalty", DataType.double, 0.0),
        ParamSpec("presence_penalty", DataType.double, 0.0),
        ParamSpec("response_format", DataType.string, ""),  # a JSON text; "": none
        ParamSpec("min_p", DataType.double, 0.0),
        ParamSpec("repetition_penalty", DataType.double, 1.0),
        ParamSpec("logit_bias", DataType.string, ""),  # a JSON text; "": none
        ParamSpec("stop_token_ids", DataType.long, [], shape=(-1,)),
        ParamSpec("ignore_eos", DataType.boolean, False),
    ]
    return ModelSignature(outputs=Schema(results), params=ParamSchema(params))
