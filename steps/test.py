"""test: run pytest over tests/, in the project's environment with tests/requirements.txt layered over it.

`args` are pytest's own, as on a command line. Without them, all tests run, spread over the CPUs.
"""

import os
import shlex
import sys

from steps.chat.runtime.cpus import usable_cpus
from steps.common.errors import StepError
from steps.project.extras import python_with
from steps.project.mlproject import ROOT, parse_parameters

TESTS = ROOT / "tests"


def main() -> int:
    """Replace this process by pytest. Return 1 where the tests can't start."""
    try:
        args = shlex.split(parse_parameters("test", sys.argv[1:])["args"])
        python = python_with(TESTS / "requirements.txt")
    except (StepError, ValueError) as error:
        print(f"test: {error}", file=sys.stderr)
        return 1
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]  # the tests open tracking stores of their own, so the run of this entry point stays out
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads of two test processes wait for each other
    command = [str(python), "-m", "pytest", "--rootdir", str(ROOT), *(args or _everything())]
    os.execv(python, command)


def _everything() -> list[str]:
    """Return pytest's arguments for all tests.

    The tests of one file share what they set up, so files are spread and not tests. There is one process more than
    CPUs, because tests often wait for a server.
    """
    return ["-n", str(usable_cpus() + 1), "--dist", "loadfile", "--no-loadscope-reorder", str(TESTS)]


if __name__ == "__main__":
    sys.exit(main())
