"""The KV cache on real graphs: a row holds what its sequence says, whatever is admitted, moved and given up."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.chat.batching.kv_cache import KVCache, common_length
from steps.chat.runtime.concatenated import ConcatenatedSession
from steps.chat.runtime.session import open_session
from steps.chat.runtime.shared_buffer import SharedBufferSession

pytestmark = pytest.mark.model
ROWS, BUDGET = 6, 120


@pytest.fixture(scope="module", params=["genai fp32", "optimum fp32"])
def session(request, converted):
    """The shipped model, by each exporter."""
    return open_session(converted[request.param], threads=1, provider="cpu", rows=ROWS)


@pytest.fixture(scope="module")
def fresh_logits(converted):
    """A function that returns the logits after a sequence, computed from nothing in a session of its own."""
    session, computed = open_session(converted["genai fp32"], 1, "cpu", 1), {}

    def logits(tokens: list[int]) -> np.ndarray:
        key = tuple(tokens)
        if key not in computed:
            if len(tokens) > 1:
                session.prefill(0, tokens[:-1], past=0)
            computed[key] = session.decode(0, tokens[-1:], [len(tokens)])[0].copy()
        return computed[key]

    return logits


def test_each_exporters_graph_has_its_kind_of_session(session, request):
    shares_buffer = "genai" in request.node.callspec.id
    assert isinstance(session, SharedBufferSession if shares_buffer else ConcatenatedSession)
    assert session.graph.token_bytes == 2 * 4 * 3 * 32 * 4  # keys and values, layers, heads, size, float32


def test_a_shared_buffer_takes_no_huge_pages(session):
    if isinstance(session, ConcatenatedSession):
        return  # ONNX Runtime owns its memory
    address, flags, inside = session._buffers[0].ctypes.data, None, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= address < int(match[2], 16)
        elif line.startswith("VmFlags") and inside:
            flags = line.split()
    assert "nh" in flags, "proc(5): no-huge page advise flag"


SEQUENCES = st.lists(st.sampled_from([10, 20, 30]), min_size=2, max_size=30)
ACTIONS = st.lists(st.one_of(SEQUENCES, st.integers(0, 3), st.booleans()), max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS)
def test_rows_hold_what_their_sequences_say(session, fresh_logits, actions):
    """A list admits a sequence, a number retires an active one, a truth value decodes a step of all active ones."""
    cache, expected = KVCache(session, BUDGET), {}
    for row in range(ROWS):
        session.free(row)
    for action in actions:
        if isinstance(action, bool):
            if cache.active:
                tokens = [40 + index for index in range(len(cache.active))]
                lengths = [len(sequence.tokens) + 1 for sequence in cache.active]
                rows = session.decode(cache.active[0].row, tokens, lengths)
                for sequence, token, logits in zip(cache.active, tokens, rows, strict=True):
                    sequence.tokens.append(token)
                    expected[sequence].append(token)
                    assert sequence.tokens == expected[sequence]
                    np.testing.assert_allclose(logits, fresh_logits(sequence.tokens), atol=2e-4)
        elif isinstance(action, int):
            if action < len(cache.active):
                cache.retire(cache.active[action])
        elif len(cache.active) < ROWS - 1:
            reserved = len(action) + 4
            sequence = cache.admit(action, reserved, long_factors=False)
            if sequence is None:
                assert sum(other.size for other in cache.active) + reserved > BUDGET or len(cache.active) >= 3
                continue
            assert sequence.tokens == action[: len(sequence.tokens)] and len(sequence.tokens) < len(action)
            session.prefill(sequence.row, action[len(sequence.tokens) :], past=len(sequence.tokens))
            sequence.tokens[:] = action
            expected[sequence] = list(action)
        assert sum(sequence.size for sequence in cache.sequences()) <= BUDGET
        assert all(cache._rows[sequence.row] is sequence for sequence in cache.sequences())
        rows = [sequence.row for sequence in cache.active]
        assert all(cache._rows[row] is sequence for row, sequence in zip(rows, cache.active, strict=True))
        assert not rows or rows == [*range(rows[0], rows[0] + len(rows))], "active rows are neighbours"


def fill(cache: KVCache, session, tokens: list[int], reserved: int):
    """Admit a sequence, and prefill what the cache does not hold of it."""
    sequence = cache.admit(tokens, reserved, long_factors=False)
    assert sequence is not None
    session.prefill(sequence.row, tokens[len(sequence.tokens) :], past=len(sequence.tokens))
    sequence.tokens[:] = tokens
    return sequence


def test_a_follow_up_takes_the_row_over_and_another_conversation_copies_the_common_prefix(session):
    cache = KVCache(session, 1000)
    first = [1, *range(100, 160)]
    cache.retire(fill(cache, session, first, 80))
    other = cache.admit([*first[:20], *range(300, 320)], 60, long_factors=False)
    assert len(other.tokens) == 20
    follow_up = cache.admit([*first, 7, 8], 80, long_factors=False)
    assert follow_up.tokens == first
    assert cache.longest_prefix([*first, 9, 9], long_factors=True) == (None, 0), "the keys are rotated otherwise"
    cache.retire(other)
    cache.retire(follow_up)


def test_the_least_recently_used_sequence_goes_first(session):
    cache = KVCache(session, 100)
    for start in (100, 200, 300):
        cache.retire(fill(cache, session, [*range(start, start + 30)], 30))
    sequence = cache.admit([*range(400, 430)], 35, long_factors=False)
    cached = [cache.longest_prefix([*range(start, start + 30)], False)[1] for start in (100, 200, 300)]
    assert cached == [0, 29, 29]
    cache.retire(sequence, keep=False)


@pytest.mark.parametrize(("a", "b", "expected"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2], [1, 3], 1)])
def test_common_length_counts_the_equal_tokens_at_the_beginning(a, b, expected):
    assert common_length(a, b) == expected
