"""Try a checkpoint's chat template in a process of its own, with limits of time and memory.

A template is a program of other people. Inside the custom model limits stop it. It is tried before any long work, so
that nobody waits for a conversion of a model whose template is refused. The process can be killed, so what the limits
miss does not stop this step.
"""

import resource
import subprocess
import sys
from pathlib import Path

from steps.common.errors import StepError

SECONDS = 60  # about 2 of them are for the imports; one rendering may take 5 s
MEMORY = 1 << 30  # bytes that the template may allocate
_ROOT = Path(__file__).parents[2]


def check_chat_template(folder: Path, seconds: float = SECONDS) -> None:
    """Render the chat template of a folder. A folder without a chat template passes.

    Raises:
        StepError: the template is damaged, refuses a user's message, or exceeds a limit.
    """
    command = [sys.executable, "-m", __name__, str(folder.absolute())]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise _refused(f"it does not end within {seconds:g} s") from None
    if done.returncode == 0:
        return
    lines = done.stdout.strip().splitlines()
    if done.returncode == 1 and lines:
        raise _refused(lines[-1])
    raise _refused(
        f"it takes more than {MEMORY >> 20} MiB of memory, or ends its process (exit code {done.returncode})"
    )


def _refused(problem: str) -> StepError:
    return StepError(
        f"the checkpoint's chat template cannot be used: {problem}. Mend chat_template.jinja, or the chat_template in "
        "tokenizer_config.json"
    )


def _main(folder: Path) -> int:
    """Print what is wrong with the template of a folder. Return the exit code."""
    from steps.chat.runtime.chat_template import check_template

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _has_proc() else 0
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        problem = check_template(folder)
    except MemoryError:
        problem = f"it takes more than {MEMORY >> 20} MiB of memory"
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        problem = f"its file is damaged ({' '.join(repr(error).split())[:200]})"
    if problem:
        print(" ".join(problem.split()))
    return int(problem is not None)


def _has_proc() -> bool:
    return Path("/proc/self/statm").is_file()


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
