"""The signatures that the model is logged with."""

from mlflow.models import ModelSignature
from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA
from mlflow.types.schema import (
    AnyType,
    Array,
    ColSpec,
    DataType,
    Object,
    ParamSchema,
    ParamSpec,
    Property,
    Schema,
    TensorSpec,
)

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"
# MLflow's columns are narrower than the OpenAI API: no whole numbers for fractions, no single stop string, and only
# some JSON schemas for tools. So these columns take anything, and api.requests checks them.
_UNCHECKED = {"stop", "tools", "temperature", "top_p", "frequency_penalty", "presence_penalty"}


def signature(task: str, max_tokens: int) -> ModelSignature:
    """Return the signature of a task.

    Args:
        max_tokens: the limit of a completion if the caller gives none.
    """
    return _completions(max_tokens) if task == COMPLETIONS else _chat()


def _chat() -> ModelSignature:
    """Return MLflow's own signature, with the columns that it lacks: MLflow drops a field that has no column."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(AnyType(), column.name, required=False) if column.name in _UNCHECKED else _with_thought(column)
        for column in CHAT_MODEL_INPUT_SCHEMA
    ]
    columns += [
        ColSpec(DataType.long, "seed", required=False),
        ColSpec(AnyType(), "response_format", required=False),
        ColSpec(AnyType(), "tool_choice", required=False),
    ]
    return ModelSignature(Schema(columns), CHAT_MODEL_OUTPUT_SCHEMA)


def _with_thought(column: ColSpec) -> ColSpec:
    """Return the column of the messages with the property reasoning_content: clients send back what they got."""
    if column.name != "messages" or not isinstance(column.type, Array) or not isinstance(column.type.dtype, Object):
        return column
    thought = Property("reasoning_content", DataType.string, required=False)
    return ColSpec(Array(Object([*column.type.dtype.properties, thought])), column.name)


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
    ]
    return ModelSignature(Schema([ColSpec(DataType.string, "prompt")]), Schema(results), ParamSchema(params))
