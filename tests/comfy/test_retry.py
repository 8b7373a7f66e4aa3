"""Backoff: how long the wait after each failure may be."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sweeper.comfy.retry import Backoff


@given(
    st.builds(Backoff, st.floats(0.01, 2), st.floats(0.01, 60), st.floats(0, 1)), st.integers(0, 5000), st.integers()
)
def test_waits_double_up_to_the_longest_wait(backoff, failures, seed):
    longest = min(backoff.max_wait, backoff.base_wait * 2 ** min(failures, 20))
    assert backoff.jitter_from * longest <= backoff.draw(failures, Random(seed)) <= longest


def test_full_jitter_spreads_over_the_whole_range():
    waits = [Backoff(1.0, 8.0).draw(5, Random(seed)) for seed in range(400)]
    assert min(waits) < 0.8
    assert max(waits) > 7.2
