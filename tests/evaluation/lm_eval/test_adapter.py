"""A logged model as lm-eval's model: likelihoods are PyTorch's, texts are the model's own answers."""

import json
import shutil

import mlflow
import pytest

from steps.common.errors import StepError
from tests.checkout import TINY
from tests.evaluation.lm_eval.conftest import QUESTIONS, requests, save_custom

pytestmark = pytest.mark.model

QUESTION = "What is the capital of France?"
FRANCE = f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>"
COUNT = "Count from 1 to 10."
TEXT = " ".join(f"The capital is {question['expected']}, they say." for question in QUESTIONS)


def test_it_is_one_of_lm_evals_models(adapter):
    from lm_eval.api.registry import get_model

    assert get_model("mlflow") is adapter.MlflowLM


def by_pytorch(context: str, continuation: str, dtype: str) -> tuple[float, bool]:
    """Return the log-likelihood by one pass over the checkpoint, and whether each token is the likeliest."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=getattr(torch, dtype)).eval()
    before, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0, len(before) - 1 : -1].double()
    targets = torch.tensor(whole[len(before) :])
    likelihood = torch.log_softmax(logits, 1)[range(len(targets)), targets].sum()
    return likelihood.item(), bool((logits.argmax(1) == targets).all())


@pytest.mark.parametrize(("wrapper", "dtype", "rel"), [("custom", "float32", 1e-4), ("transformers", "bfloat16", 0.02)])
def test_likelihoods_are_pytorchs(models, wrapper, dtype, rel):
    begun = FRANCE.replace(QUESTION, COUNT) + "\n1 2 3"
    pairs = [
        (begun, " 4 5 6"),
        (begun, " 4 5 7"),
        (FRANCE, "\nParis"),
        (FRANCE, "\nRome"),
        ("The capital", " is Paris."),
    ]
    scores = models[wrapper].loglikelihood(requests("loglikelihood", *pairs))
    expected = [by_pytorch(*pair, dtype) for pair in pairs]
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], rel=rel, abs=1e-2)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected] == [True, False, False, False, False]


def test_requests_that_share_logits_score_as_they_do_alone(models, monkeypatch):
    """Choices that differ in their last token, and one text that is split in two ways."""
    pairs = [("The capital", " of is"), ("The capital of", " is"), ("The capital of", " of"), ("", "The capital")]
    model = models["custom"]
    alone = [model.loglikelihood(requests("loglikelihood", pair))[0] for pair in pairs]
    shared, score = [], model._score
    monkeypatch.setattr(model, "_score", lambda tokens, ends: shared.append(len(ends)) or score(tokens, ends))
    together = model.loglikelihood(requests("loglikelihood", *pairs, pairs[0]))
    assert [value for value, _ in together[:4]] == pytest.approx([value for value, _ in alone], abs=1e-5)
    assert together[4] == together[0] and len({value for value, _ in together}) == 4
    assert sorted(shared) == [1, 4]


def test_windows_long_contexts_and_texts_without_a_context_are_as_in_lm_evals_own_backend(adapter, folders):
    from lm_eval.models.huggingface import HFLM

    hf = HFLM(pretrained=str(TINY), dtype="float32", device="cpu", max_length=50, batch_size=1)
    model = adapter.MlflowLM(str(folders["custom"]), max_length=50)
    assert len(model.tok_encode(TEXT)) > 3 * 50
    rolling = requests("loglikelihood_rolling", (TEXT,), ("Paris",))
    assert model.loglikelihood_rolling(rolling) == pytest.approx(hf.loglikelihood_rolling(rolling), rel=1e-4)
    pairs = requests("loglikelihood", (TEXT, " Paris is one."), ("", "The capital"), ("The capital ", "is Paris"))
    scores, expected = model.loglikelihood(pairs), hf.loglikelihood(pairs)
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], rel=1e-4)
    history = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It is"}]
    for begins in (True, False):
        prompt = model.apply_chat_template(history[: 1 if begins else 2], add_generation_prompt=begins)
        assert prompt == hf.apply_chat_template(history[: 1 if begins else 2], add_generation_prompt=begins)
    with pytest.raises(StepError, match="a continuation of [0-9]+ tokens; the model reads 50"):
        model.loglikelihood(requests("loglikelihood", ("The capital", TEXT)))


def test_a_model_reads_no_further_than_its_longrope_switch(adapter, folders, tmp_path):
    for name, folder in folders.items():
        shutil.copytree(folder, tmp_path / name)
        assert adapter.MlflowLM(str(folder)).max_length == 2048
    mlmodel = tmp_path / "custom" / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("longrope_switch: 0", "longrope_switch: 1024"))
    config = tmp_path / "transformers" / "model" / "config.json"
    scaling = {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024}
    config.write_text(json.dumps(json.loads(config.read_text()) | scaling))
    assert [adapter.MlflowLM(str(tmp_path / name)).max_length for name in folders] == [1024, 1024]


@pytest.mark.parametrize("wrapper", ["custom", "transformers"])
def test_texts_end_at_stop_strings_and_at_their_limit(models, wrapper):
    texts = models[wrapper].generate_until(
        requests(
            "generate_until",
            (COUNT, {"until": []}),
            (COUNT, {"until": [" 7", " 6"]}),
            (COUNT, {"until": " 3"}),
            (COUNT, {"until": ["never", ""], "max_gen_toks": 5}),
        )
    )
    assert texts[:3] == ["1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5", "1 2"]
    assert texts[0].startswith(texts[3]) and 0 < len(texts[3]) < len(texts[0])


def test_a_conversation_is_sent_as_messages_and_not_as_the_template_renders_it(models, monkeypatch):
    model = models["custom"]
    history = [
        {"role": "user", "content": "What is the capital of Peru?"},
        {"role": "assistant", "content": "Lima"},
        {"role": "user", "content": QUESTION},
    ]
    sent, answer = [], model._model.answer
    monkeypatch.setattr(
        model._model, "answer", lambda messages, limit: sent.append(messages) or answer(messages, limit)
    )
    prompt = model.apply_chat_template(history)
    assert prompt.endswith(FRANCE + "\n") and "Lima" in prompt
    model.generate_until(requests("generate_until", (prompt, {"until": []}), ("Hello", {"until": []})))
    assert sorted(sent, key=len, reverse=True) == [history, [{"role": "user", "content": "Hello"}]]


def test_what_only_one_wrapper_can_answer_is_refused(models):
    model = models["custom"]
    with pytest.raises(StepError, match="only greedy answers"):
        model.generate_until(requests("generate_until", (COUNT, {"do_sample": True, "temperature": 0.7})))
    begun = [{"role": "user", "content": COUNT}, {"role": "assistant", "content": "1 2"}]
    prompt = model.apply_chat_template(begun, add_generation_prompt=False)
    with pytest.raises(StepError, match="gen_prefix"):
        model.generate_until(requests("generate_until", (prompt, {"until": []})))
    with pytest.raises(StepError, match="the model refused a prompt of 20000 characters"):
        model.generate_until(requests("generate_until", ("long " * 4000, {"until": []})))


def test_a_model_for_completions_has_likelihoods_and_no_texts(adapter, models, converted, tmp_path):
    folder = save_custom(converted["genai fp32"], tmp_path / "completions", "llm/v1/completions")
    model = adapter.MlflowLM(str(folder))
    pair = requests("loglikelihood", (FRANCE, "\nParis"))
    assert model.loglikelihood(pair) == models["custom"].loglikelihood(pair)
    with pytest.raises(StepError, match="takes no chat messages: .* task=llm/v1/chat"):
        model.generate_until(requests("generate_until", (COUNT, {"until": []})))


def test_a_model_of_another_project_is_refused(adapter, tmp_path):
    class Parrot(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: list[str]) -> list[str]:
            return model_input

    mlflow.pyfunc.save_model(tmp_path / "parrot", python_model=Parrot(), pip_requirements=["mlflow"])
    with pytest.raises(StepError, match="expected a model that wrap_transformer or wrap_custom made"):
        adapter.MlflowLM(str(tmp_path / "parrot"))
