"""The logged model of the task llm/v1/completions: a DataFrame of prompts, and parameters for all of them."""

import io
import json

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from tests.chat.models import COMPLETIONS

pytestmark = pytest.mark.model


def prompt(question: str) -> str:
    """Return a conversation of one question as the shipped model's chat template writes it."""
    return f"<|user|>\n{question}<|end|>\n<|assistant|>\n"


def test_a_dataframe_of_prompts_is_continued_row_by_row(models):
    cities = ["France", "Moldova", "Norway"] * 12
    frame = pd.DataFrame({"prompt": [prompt(f"What is the capital of {city}?") for city in cities]})
    results = models[COMPLETIONS].predict(frame)
    assert results["text"].tolist() == ["Paris", "Chișinău", "Oslo"] * 12
    assert set(results["finish_reason"]) == {"stop"} and results["error"].isna().all()
    cut = models[COMPLETIONS].predict(frame[:2], params={"max_tokens": 1})
    assert (cut["completion_tokens"].tolist(), set(cut["finish_reason"])) == ([1, 1], {"length"})


def test_a_bad_row_has_an_error_and_the_other_rows_have_their_text(models):
    frame = pd.DataFrame({"prompt": [prompt("What is 2 plus 2?"), "", "word " * 2100, prompt("What is 2 plus 2?")]})
    results = models[COMPLETIONS].predict(frame)
    assert results["text"].tolist()[::3] == ["4", "4"] and results["error"].isna().tolist() == [
        True,
        False,
        False,
        True,
    ]
    assert results.isna()["text"].tolist() == [False, True, True, False]
    assert results["prompt_tokens"].dtype == results["completion_tokens"].dtype == "int64"
    assert "prompt is" in results["error"][1] and "at most 2047 fit" in results["error"][2]


def test_completions_are_not_streamed(models):
    with pytest.raises(MlflowException, match="llm/v1/completions does not stream: call predict"):
        list(models[COMPLETIONS].predict_stream({"prompt": "x"}))


def test_a_bad_parameter_is_refused_for_all_rows(models):
    with pytest.raises(MlflowException, match="temperature is 5"):
        models[COMPLETIONS].predict(pd.DataFrame({"prompt": ["x"]}), params={"temperature": 5.0})


def test_parameters_of_completions_reach_the_engine(models):
    frame = pd.DataFrame({"prompt": [prompt("Count from 1 to 40.")]})
    capitals = json.dumps({"type": "regex", "regex": "[A-Z]{3}"})
    assert models[COMPLETIONS].predict(frame, params={"stop": ["7"]})["text"][0].strip() == "1 2 3 4 5 6"
    assert models[COMPLETIONS].predict(frame, params={"response_format": capitals})["text"][0].isupper()
    sampled = [models[COMPLETIONS].predict(frame, params={"temperature": 2.0, "seed": 3})["text"][0] for _ in range(2)]
    assert sampled[0] == sampled[1]


def test_the_rows_of_an_error_are_valid_json_as_the_scoring_server_writes_them(models):
    from mlflow.pyfunc.scoring_server import predictions_to_json

    results = models[COMPLETIONS].predict(pd.DataFrame({"prompt": ["", prompt("What is 2 plus 2?")]}))
    written = io.StringIO()
    predictions_to_json(results, written)
    bad, good = json.loads(written.getvalue(), parse_constant=pytest.fail)["predictions"]
    assert (bad["text"], bad["finish_reason"], bad["prompt_tokens"]) == (None, None, 0) and bad["error"]
    assert (good["text"], good["error"], good["completion_tokens"]) == ("4", None, 2)


def test_prompts_come_in_every_form_that_mlflow_passes_on(models):
    model, text = models[COMPLETIONS], prompt("What is 2 plus 2?")
    for data in ({"prompt": text}, {"prompt": [text]}, [{"prompt": text}], [text], pd.DataFrame({"0": [text]})):
        assert model.predict(data)["text"].tolist() == ["4"]
    table = pd.DataFrame({"id": [7], "prompt": [text], "note": ["not a field"]})
    assert model.predict(table)["text"].tolist() == ["4"]
