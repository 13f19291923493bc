"""The objective: terms by name and weight, and terms rebuilt from their configuration."""

from __future__ import annotations

import pytest
import torch

from tsfmc.compiler.ir.objective import Batch, LossTerm, Objective
from tsfmc.passes.align_temporal import FTA, Aligner
from tsfmc.passes.build_student import Supervised, UniformKD
from tsfmc.passes.weight_horizons import HorizonKD

TERMS = [
    Supervised(),
    UniformKD(),
    HorizonKD(6, 1.5),
    FTA(Aligner(4, 3, 5, 2, "gelu"), "paper"),
    FTA(Aligner(4, 3, 5, 2, "identity"), "mean"),
]
BATCH = Batch(
    *(torch.randn(2, 3, 6) for _ in range(2)),
    torch.randn(2, 3, 4),
    torch.randn(2, 3, 6),
    torch.randn(2, 3, 3, 5),
)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.describe())
def test_a_term_is_rebuilt_from_its_configuration(term: LossTerm) -> None:
    rebuilt = type(term).from_config(term.config)
    rebuilt.load_state_dict(term.state_dict(), strict=True)
    assert rebuilt.config == term.config and rebuilt.describe() == term.describe()
    loss = term(BATCH)
    assert loss.ndim == 0 and torch.equal(rebuilt(BATCH), loss)


@pytest.mark.parametrize("term", TERMS[1:], ids=lambda term: term.describe())
def test_a_term_says_what_its_batch_lacks(term: LossTerm) -> None:
    with pytest.raises(ValueError, match="the batch has no"):
        term(Batch(BATCH.forecast, BATCH.target))
    assert term.needs_teacher != term.needs_states


def test_terms_are_added_replaced_and_left_out_by_weight() -> None:
    first = Objective().put(1.0, Supervised()).put(0.5, UniformKD())
    weighted = HorizonKD(6, 1.0)
    second = first.put(2.0, weighted)
    assert [(weight, term.name) for weight, term in second] == [(1.0, "supervised"), (2.0, "kd")]
    assert second.terms[1][1] is weighted and first.weight("kd") == 0.5  # the old one is as it was
    assert second.weight("kd") == 2.0 and second.weight("fta") == 0.0
    silent = second.put(0.0, weighted)
    assert [term.name for _, term in silent.active()] == ["supervised"]
    assert second.needs_teacher and not silent.needs_teacher and not second.needs_states
    assert second.put(1.0, TERMS[3]).needs_states and not second.put(0.0, TERMS[3]).needs_states
    assert first.lines() == ["1 * supervised", "0.5 * kd uniform over the horizon"]
    assert Objective().lines() == ["(empty)"]
