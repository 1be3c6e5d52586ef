"""What a logged model needs: six packages, and nothing that made it."""

import subprocess
import sys

import pytest
from mlflow.pyfunc import get_model_dependencies

from steps.common.packages import installed_versions
from tests.chat.models import CHAT, COMPLETIONS, FRANCE

pytestmark = pytest.mark.model
REQUIREMENTS = ("mlflow", "onnxruntime", "tokenizers", "jinja2", "llguidance", "numpy")
BLOCKED = ("onnxruntime_genai", "transformers", "torch", "optimum", "onnx", "steps")
# A finder that comes before Python's own: importing a blocked package fails as if it were not installed.
USE = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import mlflow

chat, completions = (mlflow.pyfunc.load_model(folder) for folder in sys.argv[1:])
request = {{"messages": {FRANCE}}}
print(chat.predict(request)[0]["choices"][0]["message"]["content"])
print(len(list(chat.predict_stream(request))))
print(chat.predict(request | {{"response_format": {{"type": "regex", "regex": "[0-9]"}}}})[0]["usage"]["prompt_tokens"])
prompt = "<|user|>\\nWhat is the capital of France?<|end|>\\n<|assistant|>\\n"
print(completions.predict([{{"prompt": prompt}}])["text"][0])
print([name for name in {BLOCKED} if name in sys.modules])
"""


@pytest.mark.parametrize("name", [CHAT, COMPLETIONS, "int4", "tools"])
def test_the_requirements_are_the_packages_that_the_model_imports(model_folders, name):
    with open(get_model_dependencies(str(model_folders[name]))) as file:
        requirements = file.read().split()
    assert sorted(requirements) == sorted(
        f"{name}=={version}" for name, version in installed_versions(REQUIREMENTS).items()
    )
    assert len(requirements) == len(REQUIREMENTS)


def test_a_model_answers_where_the_packages_that_made_it_are_missing(model_folders, tmp_path):
    command = [sys.executable, "-c", USE, str(model_folders[CHAT]), str(model_folders[COMPLETIONS])]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["Paris", "4", "15", "Paris", "[]"]
