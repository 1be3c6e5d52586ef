"""lm-eval's own clients, local-completions and local-chat-completions, against the server."""

from pathlib import Path
from typing import Any

import pytest

from tests.checkout import TINY
from tests.evaluation.lm_eval.conftest import QUESTIONS, requests, write_tasks
from tests.serving.harness import NAME, Server

pytestmark = pytest.mark.model
PARIS = "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>"
PAIRS = [(PARIS, "\nParis"), (PARIS, "\nRome"), ("The capital", " is Paris."), ("Oslo is a city", " in Norway")]
# lm-eval's tokenizer as a copy of the model's, or as what the server's /tokenize says.
TOKENIZERS = [{"tokenizer": str(TINY), "tokenizer_backend": "huggingface"}, {"tokenizer_backend": "auto"}]


@pytest.fixture(scope="module", autouse=True)
def lm_eval(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """lm-eval without a hub."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield pytest.importorskip("lm_eval")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_likelihoods_of_local_completions_are_our_adapters(server: Server, model_folder: Path, tokenizer):
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from steps.evaluation.lm_eval.adapter import MlflowLM

    client = LocalCompletionsAPI(base_url=f"{server.url}/v1/completions", model=NAME, batch_size=2, **tokenizer)
    scores = client.loglikelihood(requests("loglikelihood", *PAIRS), disable_tqdm=True)
    expected = MlflowLM(str(model_folder)).loglikelihood(requests("loglikelihood", *PAIRS))
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], rel=1e-4, abs=1e-3)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]


def test_a_task_by_local_chat_completions(server: Server, tmp_path: Path):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    arguments = {"base_url": f"{server.url}/v1/chat/completions", "model": NAME, "num_concurrent": 4}
    results = simple_evaluate(
        model="local-chat-completions",
        model_args=arguments,
        tasks=["say_3_wrong"],
        task_manager=TaskManager(include_path=str(write_tasks(tmp_path, wrong=3)), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=False,
    )
    right = (len(QUESTIONS) - 3) / len(QUESTIONS)
    assert results["results"]["say_3_wrong"]["exact_match,none"] == pytest.approx(right)
