"""test: pytest over tests/, in the project's environment; `args` are pytest's own, as on a command line."""

import os
import shlex
import sys

import pytest

from steps.chat.runtime.cpus import usable_cpus
from steps.common.errors import StepError
from steps.project.mlproject import ROOT, parse_parameters

_LONGEST = (
    "test_main.py",
    "test_submit_databricks.py",
    "faults/test_outages.py",
    "test_lora.py",
    "faults/test_failures.py",
    "test_evaluate.py",
)


def main() -> int:
    """Run pytest and hand back its exit code. The tests open tracking stores of their own, so this run stays out."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    try:
        args = shlex.split(parse_parameters("test", sys.argv[1:])["args"])
    except StepError as error:
        print(f"test: {error}", file=sys.stderr)
        return 1
    # A file's tests share what they set up, so files are spread, not tests; the longest files first. One process more
    # than CPUs, since tests often wait for a server.
    spread = ["-n", str(usable_cpus() + 1), "--dist", "loadfile", "--no-loadscope-reorder"]
    folder = ROOT / "tests"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of PyTorch: two that wait for each other take many times as long
    everything = [*spread, *(str(folder / name) for name in _LONGEST), str(folder)]
    return pytest.main(["--rootdir", str(ROOT), "-p", "no:cacheprovider", *(args or everything)])


if __name__ == "__main__":
    sys.exit(main())
