"""Evenly spread positions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tsfmc.compiler.base.spread import spread


@given(st.integers(2, 10_000), st.integers(2, 500))
def test_first_and_last_are_there_and_gaps_are_even(total: int, count: int) -> None:
    chosen = spread(total, count)
    assert len(chosen) == count and chosen[0] == 0 and chosen[-1] == total - 1
    gaps = chosen[1:] - chosen[:-1]
    assert gaps.min() >= 0 and gaps.max() - gaps.min() <= 1


def test_as_many_as_there_are_is_all_of_them() -> None:
    assert spread(7, 7).tolist() == list(range(7))
    assert spread(5, 3).tolist() == [0, 2, 4]
    assert spread(2, 4).tolist() == [0, 0, 1, 1]
    assert spread(9, 1).tolist() == [0]
