"""test: pytest over tests/, in the project's environment; `args` are pytest's own, as on a command line."""

import os
import shlex
import sys

import pytest

from steps.errors import StepError
from steps.tracking.project import ROOT, parse_parameters


def main() -> int:
    """Run pytest and hand back its exit code. The tests open tracking stores of their own, so this run stays out."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    try:
        args = shlex.split(parse_parameters("test", sys.argv[1:])["args"])
    except StepError as error:
        print(f"test: {error}", file=sys.stderr)
        return 1
    return pytest.main(["--rootdir", str(ROOT), "-p", "no:cacheprovider", *(args or [str(ROOT / "tests")])])


if __name__ == "__main__":
    sys.exit(main())
