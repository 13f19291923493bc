"""A fleet's sums are those of its windows, its heads least squares, and what differs is told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factory import HORIZON as H
from factory import LOOKBACK as L
from factory import write_panel

from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.data import Panel, load_panel
from tsfmc.compiler.learning.affine import DEFAULT_RIDGE, Setting, solve, squared_error
from tsfmc.compiler.learning.fleet import FleetSolution, solve_fleet
from tsfmc.compiler.learning.fleet_heads import (
    HeadGrid,
    Heads,
    closest,
    clustered,
    item_heads,
    squared_errors,
)
from tsfmc.compiler.learning.fleet_sums import FleetFolds, Sample, Stretch, origins, pooled_sums
from tsfmc.compiler.learning.grid import Grid
from tsfmc.compiler.learning.item_sums import Few, ItemSums, Targets
from tsfmc.compiler.learning.statistics import Sums, window_sums


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    source = write_panel(tmp_path_factory.mktemp("panel") / "m.csv")
    return load_panel(source, lookback=L, horizon=H, id_column="unique_id")


def by_windows(panel: Panel, stretch: Stretch) -> Sums:
    """The same from the windows themselves, one item after the other."""
    parts = []
    for item in range(len(panel.ids)):
        own = panel.scaled(item, int(panel.begins[item]), int(panel.ends[item]))
        for future in range(L, len(own) - H + 1):
            step = int(panel.starts[item]) + future
            if stretch.low <= step < stretch.high and step + H <= stretch.until:
                parts.append(own[future - L : future + H])
    windows = torch.from_numpy(np.stack(parts))[:, None]
    return window_sums(windows[..., :L], windows[..., L:])


@pytest.mark.parametrize("stretch", [Stretch(0, 10**6, 210), Stretch(80, 130, 210), Stretch(210, 10**6, 240)])
def test_sums_of_all_items_are_those_of_their_windows(panel: Panel, stretch: Stretch) -> None:
    found, expected = pooled_sums(panel, stretch, L, H), by_windows(panel, stretch)
    assert found.count == expected.count
    torch.testing.assert_close(found.gram, expected.gram, rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(found.cross["truth"], expected.cross["truth"], rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(found.square["truth"], expected.square["truth"], rtol=1e-9, atol=1e-7)


def test_no_fit_has_seen_what_it_is_judged_on(panel: Panel) -> None:
    found = origins(panel, L, H, 8)
    assert [origin.name for origin in found] == [*(f"block {k}" for k in range(2, 8)), "validation"]
    for origin in found:
        # The last future of the fit ends before the first future that is judged begins.
        assert min(origin.more.high, origin.more.until - H + 1) - 1 + H <= origin.judged.low
        assert origin.judged.high <= origin.judged.until or origin.name == "validation"
    assert [each.more.low for each in found[1:]] == [each.more.high for each in found[:-1]]
    assert [origin.name for origin in origins(panel, L, 3 * H, 8)] == ["validation"]  # blocks of 20 steps


def sample_of(panel: Panel, every: int) -> Sample:
    windows = panel.windows("train", L, H)
    chosen = np.arange(0, len(windows), every)
    past, _ = windows.batch(chosen)
    labels = (past[:, 0, -H:] * 0.5).numpy()  # a linear teacher that a map of the window meets exactly
    return Sample(windows.items(chosen), windows.starts(chosen), labels)


@pytest.mark.parametrize("every", [1, 3])
def test_a_sample_of_labels_stands_for_all(panel: Panel, every: int) -> None:
    """All labels give the teacher's sums exactly, some nearly, for a teacher that is linear in the window."""
    folds = FleetFolds(panel, L, H, origins(panel, L, H, 8), sample_of(panel, every), 4)
    list(folds.folds())
    assert folds.pooled is not None
    windows = panel.windows("train", L, H)
    past, _ = windows.batch(range(len(windows)))
    expected = window_sums(past, past[..., -H:] * 0.5, "teacher").cross["teacher"]
    scale = float(expected.abs().max())
    tolerance = 1e-5 if every == 1 else 0.05
    assert float((folds.pooled.cross["teacher"] - expected).abs().max()) < tolerance * scale


def projected(panel: Panel, folder: Path, basis: torch.Tensor, targets: Targets | None = None) -> ItemSums:
    ones = Targets(np.ones(H), np.zeros(H))
    with Silent().task("", 1) as task:
        return ItemSums(folder, panel, basis, H, origins(panel, L, H, 8), targets or ones, task)


def test_item_sums_are_projections_of_the_items_sums(panel: Panel, tmp_path: Path) -> None:
    basis = torch.randn(5, L, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = projected(panel, tmp_path, basis)
    last = len(sums.origins) - 1
    for item in (0, 7):
        own = pooled_sums(panel.subset([item]), Stretch(0, 10**6, panel.splits.train), L, H)
        few = sums.few(last, "fit", np.array([item]))
        assert int(few.count) == own.count
        torch.testing.assert_close(few.gram[0], basis @ own.gram[0] @ basis.T, rtol=1e-5, atol=1e-2)
        torch.testing.assert_close(few.cross[0], basis @ own.cross["truth"][0], rtol=1e-5, atol=1e-2)
    everyone = pooled_sums(panel, Stretch(0, 10**6, panel.splits.train), L, H)
    torch.testing.assert_close(
        sums.fleet[last].gram[0], basis @ everyone.gram[0] @ basis.T, rtol=1e-9, atol=1e-6
    )
    judged = sums.few(last, "judged", slice(None))
    val = pooled_sums(panel, sums.origins[last].judged, L, H)
    assert float(judged.square.sum()) == pytest.approx(float(val.square["truth"].sum()), rel=1e-9)
    assert int(judged.count.sum()) == val.count


def test_heads_lean_on_the_fleet_by_windows(panel: Panel, tmp_path: Path) -> None:
    basis = torch.linalg.qr(
        torch.randn(L, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )[0].T
    sums = projected(panel, tmp_path, basis.contiguous())
    few, fleet = sums.few(0, "fit", slice(None)), sums.fleet[0]
    alone = item_heads(few, fleet, Heads("items", 4, 0, 1e-9))
    direct = torch.linalg.solve(few.gram, few.cross)
    torch.testing.assert_close(alone, direct, rtol=1e-3, atol=1e-4)
    all_fleet = item_heads(few, fleet, Heads("items", 4, 0, 1e9))
    torch.testing.assert_close(
        all_fleet[3], torch.linalg.solve(fleet.gram, fleet.cross)[0], rtol=1e-3, atol=1e-4
    )
    errors = squared_errors(few.of(torch.tensor([2])), direct[2:3])
    assert float(errors) < float(squared_errors(few.of(torch.tensor([2])), all_fleet[2:3]))


def test_clusters_are_the_kinds_that_there_are() -> None:
    draw = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 4, 6, generator=draw, dtype=torch.float64)
    which = torch.arange(60) % 3
    z = torch.randn(60, 200, 4, generator=draw, dtype=torch.float64)
    y = z @ kinds[which] + 0.1 * torch.randn(60, 200, 6, generator=draw, dtype=torch.float64)
    few = Few(torch.full((60,), 200.0), z.mT @ z, z.mT @ y, y.square().sum((1, 2)))
    member = closest(few, clustered(few, few.total(), 3))
    assert len({(int(a), int(b)) for a, b in zip(which, member, strict=True)}) == 3
    assert len(set(member.tolist())) == 3


def solved(panel: Panel, folder: Path, **options: object) -> FleetSolution:
    given: dict[str, object] = {"blocks": 8, "sample": None, "default": None, **options}
    grid = given.pop("grid", Grid(forms=("shared",)))
    heads = given.pop("heads", HeadGrid(ranks=(3, 7)))
    return solve_fleet(panel, L, H, grid, heads, folder=folder, progress=Silent(), **given)  # type: ignore[arg-type]


def test_alike_items_share_a_head_and_different_ones_do_not(tmp_path: Path) -> None:
    found = {}
    for apart in (0.0, 1.0):
        source = write_panel(tmp_path / f"{apart}.csv", items=16, rows=400, apart=apart)
        panel = load_panel(source, lookback=L, horizon=H, id_column="unique_id")
        found[apart] = solved(panel, tmp_path).found
    assert found[0.0].chosen.mode == "fleet" and len(found[0.0].heads) == 1
    apart_slots = found[1.0].slot_of
    if found[1.0].chosen.mode == "clusters":
        assert {*apart_slots[::2]}.isdisjoint(apart_slots[1::2])
    assert found[1.0].table[0]["log_ratio"] >= min(row["log_ratio"] for row in found[1.0].table)


def test_one_head_of_full_rank_is_the_map_of_all_items(panel: Panel, tmp_path: Path) -> None:
    """With as many directions as steps ahead the fleet's head on the basis is the pooled ridge solution."""
    found = solved(
        panel,
        tmp_path,
        grid=Grid(forms=("shared",), ridges=(DEFAULT_RIDGE,)),
        heads=HeadGrid(("fleet",), (H,)),
    )
    everyone = pooled_sums(panel, Stretch(0, 10**6, panel.splits.train), L, H)
    own = solve(everyone, Setting(ridge=DEFAULT_RIDGE))
    error, direct = (
        squared_error(everyone, type(own)("shared", matrix=matrix))
        for matrix in (found.found.heads[0] @ found.basis, own.maps()[0])
    )
    assert error == pytest.approx(direct, rel=5e-3)
