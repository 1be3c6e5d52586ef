"""What importing the report costs."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e  # starts a process


def test_importing_the_report_does_not_load_matplotlib():
    code = "import sys, steps.evaluation.report.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
