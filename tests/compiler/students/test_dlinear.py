"""DLinear in its forms: moving average, start at zero, solved maps, what folds and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tsfmc.compiler.base.errors import PassError, RecipeError, UsageError
from tsfmc.compiler.students import build_student, check_student, from_config, takes
from tsfmc.compiler.students.affine import AffineMap, AffineMaps, LowRankMap
from tsfmc.compiler.students.dlinear import DLinear

L, H, D = 40, 6, 3
FORMS: list[tuple[str, type, list[tuple[int, ...]]]] = [
    ("shared", AffineMap, [(H, L)]),
    ("per-variate", AffineMaps, [(D, H, L)]),
    ("low-rank", LowRankMap, [(4, L), (D, H, 4)]),
]


def arrays_of(shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def test_trend_is_the_moving_average_with_replicated_edges() -> None:
    student = DLinear(L, H, kernel=5)
    window = torch.randn(2, D, L)
    trend, season = student.split(window)
    values = window[0, 0].tolist()
    padded = [values[0]] * 2 + values + [values[-1]] * 2
    expected = torch.tensor([sum(padded[i : i + 5]) / 5 for i in range(L)])
    torch.testing.assert_close(trend[0, 0], expected)
    torch.testing.assert_close(trend + season, window)


@pytest.mark.parametrize("config", [{}, {"embedding": 8}, *({"maps": form} for form, _, _ in FORMS)])
def test_an_untrained_student_repeats_the_mean(config: dict[str, Any]) -> None:
    """Directions of the window that the data never excite carry nothing of a random start."""
    student = DLinear(L, H, variates=D, **config)
    past = torch.randn(4, D, L) + 3
    torch.testing.assert_close(student(past), past.mean(-1, keepdim=True).expand(-1, -1, H))


@pytest.mark.parametrize(("form", "folded_type", "shapes"), FORMS)
@pytest.mark.parametrize("kernel", [1, 25])
@pytest.mark.parametrize("as_numpy", [False, True])
def test_a_solved_map_is_the_student_and_what_it_folds_into(
    form: Any, folded_type: type, shapes: list[tuple[int, ...]], kernel: int, as_numpy: bool
) -> None:
    arrays = arrays_of(shapes)
    maps = arrays[1] @ arrays[0] if form == "low-rank" else arrays[0]
    given = [array.numpy() for array in arrays] if as_numpy else arrays
    student = DLinear.from_affine(
        form, given, kind="dlinear", lookback=L, horizon=H, variates=D, kernel=kernel, maps="auto"
    )
    assert (student.maps, student.kernel) == (form, kernel)
    past = torch.randn(5, D, L) * 2 + 1
    mean = past.double().mean(-1, keepdim=True)
    weights = maps if maps.ndim == 3 else maps.expand(D, -1, -1)
    expected = (torch.einsum("dhl,bdl->bdh", weights, past.double() - mean) + mean).float()
    with torch.no_grad():
        torch.testing.assert_close(student(past), expected, rtol=1e-4, atol=1e-4)
        folded = student.fold()
        assert type(folded) is folded_type
        torch.testing.assert_close(folded(past), expected, rtol=1e-4, atol=1e-4)
    for model in (student, folded):
        rebuilt = from_config(model.config)
        rebuilt.load_state_dict(model.state_dict(), strict=True)
        with torch.no_grad():
            assert torch.equal(rebuilt(past), model(past))


def test_a_single_array_needs_no_list() -> None:
    weight = torch.randn(H, L)
    student = DLinear.from_affine("shared", weight, lookback=L, horizon=H)
    assert torch.equal(student.trend.weight, weight) and torch.equal(student.season.weight, weight)  # type: ignore[arg-type]
    DLinear.from_affine("shared", np.zeros((H, L)), lookback=L, horizon=H)


@pytest.mark.parametrize("form", ["per-variate", "low-rank"])
def test_trend_and_season_fold_with_weights_of_their_own(form: Any) -> None:
    """As after training, where the two maps differ."""
    student = DLinear(L, H, maps=form, rank=4, variates=D)
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    past = torch.randn(5, D, L)
    with torch.no_grad():
        torch.testing.assert_close(student.fold()(past), student(past), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "solvable"),
    [
        ({}, True),
        ({"maps": "auto"}, True),
        ({"maps": "per-variate"}, True),
        ({"maps": "low-rank"}, True),
        ({"embedding": 8}, False),
        ({"normalisation": "last"}, False),
        ({"normalisation": "none"}, False),
    ],
)
def test_what_can_be_solved(options: dict[str, Any], solvable: bool) -> None:
    student = DLinear(L, H, variates=D, **options)
    assert student.solvable == solvable
    if not solvable:
        with pytest.raises(UsageError, match="only a plain, instance-normalised DLinear"):
            student.load_affine(torch.zeros(H, L))


@pytest.mark.parametrize(
    ("form", "shapes"),
    [
        ("shared", [(L, H)]),
        ("shared", [(D, H, L)]),
        ("shared", []),
        ("per-variate", [(D + 1, H, L)]),
        ("low-rank", [(4, L)]),
        ("low-rank", [(4, L), (D, H, 5)]),
    ],
)
def test_arrays_of_another_form_are_refused(form: Any, shapes: list[tuple[int, ...]]) -> None:
    student = DLinear(L, H, maps=form, rank=4, variates=D)
    with pytest.raises(UsageError, match=rf"for a DLinear with {form} maps, expected \["):
        student.load_affine(*arrays_of(shapes))


@pytest.mark.parametrize("place", [0, 1])
def test_maps_that_are_not_finite_are_refused(place: int) -> None:
    arrays = arrays_of(FORMS[2][2])
    arrays[place].view(-1)[3] = torch.nan
    with pytest.raises(UsageError, match="not finite"):
        DLinear.from_affine("low-rank", arrays, lookback=L, horizon=H, variates=D)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": "each"}, r"maps='each'.*known: shared, per-variate, low-rank, auto"),
        ({"maps": "per-variate"}, r"student.variates=0"),
        ({"maps": "per-variate", "variates": D, "normalisation": "last"}, "normalisation='last'"),
        ({"maps": "low-rank", "variates": D, "embedding": 4}, "embedding=4"),
        ({"maps": "low-rank", "variates": D, "rank": 0}, r"rank=0.*choose 1 to 40"),
        ({"maps": "low-rank", "variates": D, "rank": L + 1}, r"rank=41.*choose 1 to 40"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        DLinear(L, H, **options)


def test_the_rank_may_be_the_lookback() -> None:
    assert DLinear(L, H, maps="low-rank", variates=D, rank=L).embedding_dim == L


def test_embeddings_are_those_of_the_forms_with_a_head() -> None:
    past = torch.randn(2, D, L)
    for options, width in (({"embedding": 8}, 8), ({"maps": "low-rank", "rank": 5, "variates": D}, 5)):
        student = DLinear(L, H, **options)  # type: ignore[arg-type]
        forecast, embedding = student.forecast_and_embedding(past)
        assert embedding.shape == (2, D, width) and student.embedding_dim == width
        assert torch.equal(student.embed(past), embedding) and torch.equal(student(past), forecast)
    plain = DLinear(L, H)
    assert plain.embedding_dim == 0
    with pytest.raises(PassError, match="has no embedding to align"):
        plain.embed(past)


def test_biases_only_where_they_stay_affine() -> None:
    assert not [n for n, _ in DLinear(L, H, embedding=4).named_parameters() if "bias" in n]
    for normalisation in ("none", "last"):
        named = [n for n, _ in DLinear(L, H, normalisation=normalisation).named_parameters()]  # type: ignore[arg-type]
        assert {"trend.bias", "season.bias"} <= set(named)


def test_options_are_checked_by_name() -> None:
    check_student("dlinear", ["kernel", "maps"])
    with pytest.raises(UsageError, match=r"option of student dlinear.*did you mean 'kernel'"):
        check_student("dlinear", ["kernl"])
    with pytest.raises(UsageError):
        check_student("dlinear", ["lookback"])  # the task's, not the student's
    assert takes("dlinear", "variates") and not takes("itransformer", "variates")
    with pytest.raises(UsageError, match=r"affine_maps.*dlinear|dlinear.*affine_maps"):
        from_config({"kind": "afine"})
    assert isinstance(build_student("dlinear", lookback=L, horizon=H), DLinear)
