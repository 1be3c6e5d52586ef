"""The signatures that the model is logged with."""

from mlflow.models import ModelSignature
from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA
from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"


def signature(task: str, max_tokens: int) -> ModelSignature:
    """The signature of a task.

    MLflow drops what a signature does not name, so chat's has, beside the columns of MLflow's own, those of the OpenAI
    API that it lacks; and its tools may have any JSON schema, its stop be a single string, and its fractions be written
    as whole numbers, which MLflow would refuse.

    Args:
        max_tokens: of a completion where the caller says nothing.
    """
    if task == COMPLETIONS:
        return ModelSignature(
            Schema([ColSpec(DataType.string, "prompt")]),
            Schema(
                [
                    ColSpec(DataType.string, "text", required=False),
                    ColSpec(DataType.string, "finish_reason", required=False),
                    ColSpec(DataType.long, "prompt_tokens", required=False),
                    ColSpec(DataType.long, "completion_tokens", required=False),
                    ColSpec(DataType.string, "error", required=False),
                ]
            ),
            ParamSchema(
                [
                    ParamSpec("max_tokens", DataType.long, max_tokens),
                    ParamSpec("temperature", DataType.double, 0.0),
                    ParamSpec("top_p", DataType.double, 1.0),
                    ParamSpec("top_k", DataType.long, 0),
                    ParamSpec("stop", DataType.string, [], shape=(-1,)),
                    ParamSpec("seed", DataType.long, -1),  # none
                    ParamSpec("frequency_penalty", DataType.double, 0.0),
                    ParamSpec("presence_penalty", DataType.double, 0.0),
                    ParamSpec("response_format", DataType.string, ""),  # JSON
                ]
            ),
        )
    free = {"stop", "tools", "temperature", "top_p", "frequency_penalty", "presence_penalty"}
    columns = [
        ColSpec(AnyType(), column.name, required=False) if column.name in free else column
        for column in CHAT_MODEL_INPUT_SCHEMA
    ]
    columns += [
        ColSpec(DataType.long, "seed", required=False),
        ColSpec(AnyType(), "response_format", required=False),
        ColSpec(AnyType(), "tool_choice", required=False),
    ]
    return ModelSignature(Schema(columns), CHAT_MODEL_OUTPUT_SCHEMA)
