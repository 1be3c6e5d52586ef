"""Rows of keys and values on a real graph: whatever is admitted, moved and given up, a row holds what its text says."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.chat.batching.kv_cache import Memory, common_length
from steps.chat.runtime.concatenated import ConcatenatedSession
from steps.chat.runtime.session import open_session
from steps.chat.runtime.shared_buffer import SharedBufferSession

ROWS, BUDGET = 6, 120


@pytest.fixture(scope="module", params=["genai fp32", "optimum fp32"])
def rows(request, converted):
    """The shipped model's graph, of either exporter."""
    return open_session(converted[request.param], threads=1, provider="cpu", rows=ROWS)


@pytest.fixture(scope="module")
def fresh(rows, converted):
    """Logits after a text, computed in a graph of its own from nothing."""
    alone, known = open_session(converted["genai fp32"], 1, "cpu", 1), {}

    def logits(tokens: list[int]) -> np.ndarray:
        key = tuple(tokens)
        if key not in known:
            if len(tokens) > 1:
                alone.prefill(0, tokens[:-1], 0)
            known[key] = alone.decode(0, tokens[-1:], [len(tokens)])[0].copy()
        return known[key]

    return logits


def test_each_exporters_graph_has_its_kind_of_rows(rows, request):
    shares = "genai" in request.node.callspec.id
    assert isinstance(rows, SharedBufferSession if shares else ConcatenatedSession)
    assert rows.graph.token_bytes == 2 * 4 * 3 * 32 * 4  # keys and values, layers, heads, size, float32


def test_rows_take_no_huge_pages(rows):
    if isinstance(rows, ConcatenatedSession):
        return  # its memory is ONNX Runtime's own
    address, flags = rows._buffers[0].ctypes.data, None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(found[1], 16) <= address < int(found[2], 16)
        elif line.startswith("VmFlags") and here:
            flags = line.split()
    assert "nh" in flags, "proc(5): no-huge page advise flag"


TEXTS = st.lists(st.sampled_from([10, 20, 30]), min_size=2, max_size=30)
ACTIONS = st.lists(st.one_of(TEXTS, st.integers(0, 3), st.booleans()), max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS)
def test_rows_hold_what_their_texts_say(rows, fresh, actions):
    """A list admits a text, a number ends an active one, a truth value takes a step of all."""
    memory, wanted = Memory(rows, BUDGET), {}
    for row in range(ROWS):
        rows.free(row)
    for action in actions:
        if isinstance(action, bool):
            if memory.active:
                tokens = [40 + i for i in range(len(memory.active))]
                lengths = [len(text.tokens) + 1 for text in memory.active]
                found = rows.decode(memory.first, tokens, lengths, 0)
                for text, token, logits in zip(memory.active, tokens, found, strict=True):
                    text.tokens.append(token)
                    wanted[text].append(token)
                    assert text.tokens == wanted[text]
                    np.testing.assert_allclose(logits, fresh(text.tokens), atol=2e-4)
        elif isinstance(action, int):
            if action < len(memory.active):
                memory.retire(memory.active[action])
        elif len(memory.active) < ROWS - 1:
            text = memory.admit(action, len(action) + 4, long=False)
            if text is None:
                assert sum(t.size for t in memory.active) + len(action) + 4 > BUDGET or len(memory.active) >= 3
                continue
            assert text.tokens == action[: len(text.tokens)] and len(text.tokens) < len(action)
            rows.prefill(memory.row(text), action[len(text.tokens) :], len(text.tokens), 0)
            text.tokens[:] = wanted[text] = list(action)
            wanted[text] = list(action)
        held = [text for text in memory._texts if text]
        assert sum(text.size for text in held) <= BUDGET
        assert memory._texts[memory.first : memory.first + len(memory.active)] == memory.active


def test_a_follow_up_takes_over_the_row_and_a_stranger_shares_the_beginning(rows):
    memory = Memory(rows, 1000)
    first = [1, *range(100, 160)]
    text = memory.admit(first, 80, long=False)
    rows.prefill(memory.row(text), first, 0)
    text.tokens[:] = first
    memory.retire(text)
    stranger = memory.admit([*first[:20], *range(300, 320)], 60, long=False)
    assert len(stranger.tokens) == 20
    follow_up = memory.admit([*first, 7, 8], 80, long=False)
    assert follow_up.tokens == first
    assert memory.prefix([*first, 9, 9], long=True) == (None, 0), "another rotation of the keys"
    memory.retire(stranger)
    memory.retire(follow_up)


def test_the_least_recently_used_text_goes_first(rows):
    memory = Memory(rows, 100)
    for start in (100, 200, 300):
        text = memory.admit(list(range(start, start + 30)), 30, long=False)
        rows.prefill(memory.row(text), list(range(start, start + 30)), 0)
        text.tokens[:] = range(start, start + 30)
        memory.retire(text)
    text = memory.admit(list(range(400, 430)), 35, long=False)
    assert [memory.prefix([*range(start, start + 30)], False)[1] for start in (100, 200, 300)] == [0, 29, 29]
    memory.retire(text, keep=False)


@pytest.mark.parametrize(("a", "b", "expected"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2], [1, 3], 1)])
def test_common_length(a, b, expected):
    assert common_length(a, b) == expected
