"""Keep the memory of the process flat, where the C library is glibc. Elsewhere the functions do nothing."""

import asyncio
import contextlib
import ctypes

from steps.serving.jobs import in_thread

_M_ARENA_MAX = -8  # of malloc.h
_SECONDS = 5.0  # between two times that free memory is given back


def share_memory() -> None:
    """Let all threads allocate from one heap.

    Else each thread has a heap of its own, and keeps there what the largest request took: 20 MB for a prompt of 100 KB.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


async def give_memory_back() -> None:
    """Give free memory back to the system from time to time, for ever.

    A long prompt leaves many free pieces between pieces in use. By itself malloc gives back only what is free at the
    end of the heap, so long prompts would make the process larger for hours.
    """
    while True:
        await asyncio.sleep(_SECONDS)
        await in_thread(_trim)


def _trim() -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
