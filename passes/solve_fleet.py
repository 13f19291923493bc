"""Solves the affine student of a panel, exactly: one basis for all items, heads for the fleet's parts.

    y_i = m + C_s(i) A (x_i - m)        A [r, L] of all items, C_s [H, r] of item i's slot s(i)

    pass 1   G, R (and T of a sample of labels) of all items    ->  lambda, tau, ridge; the basis A
    pass 2   A G_i A', A R_i of each item                       ->  heads, and how many: by rolling origin

Slots are the fleet's head and, where rolling origin prefers them, those of clusters of items (found from
their sums) or of every item, shrunk towards the fleet's.  The first slot is for items that nobody has seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..compiler.base.errors import PassError
from ..compiler.base.parallel import one_thread
from ..compiler.data import Panel, PanelWindows, SpreadWindows
from ..compiler.ir.fleet import FLEET, Fleet
from ..compiler.ir.forecaster import Student
from ..compiler.ir.objective import Objective
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import Setting
from ..compiler.learning.fleet import solve_fleet, table_of
from ..compiler.learning.fleet_heads import HeadGrid, Mode
from ..compiler.learning.fleet_sums import TEACHER, Sample
from ..compiler.learning.grid import Grid
from ..compiler.students.affine import fold_low_rank

Weight = Annotated[float, Field(ge=0, allow_inf_nan=True)]
Rank = Annotated[int, Field(ge=1)]


class SolveFleet(Pass):
    """Replaces the untrained student by the solved fleet, and adds who has which slot."""

    name = "solve_fleet"
    reads = frozenset({"data", "teacher_store", "student", "objective"})
    writes = frozenset({"student", "objective", "fleet"})
    summary = "solve a panel: shared basis, heads by item, by cluster or one, chosen by rolling origins"

    class Options(PassOptions):
        """``heads`` that may be chosen; the values tried of the teacher's weight and of the rank; ``blocks``
        of time that training is cut into, where they are longer than a horizon."""

        heads: Literal["auto", "fleet", "clusters", "items"] = "auto"
        lambdas: tuple[Weight, ...] = Field(default=Grid.distill, min_length=1)
        ridges: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=Grid.ridges, min_length=1)
        ranks: tuple[Rank, ...] = Field(default=HeadGrid.ranks, min_length=1)
        blocks: int = Field(default=8, ge=3)

    def requires(self, unit: CompileUnit) -> None:
        if not isinstance(unit.data, Panel):
            raise PassError(
                "the data are no panel", hint="put gather_statistics and solve_affine in its place"
            )
        if not isinstance(unit.student, Student) or not unit.objective.active():
            raise PassError("there is no student with an objective", hint="put build_student before it")
        if not unit.student.solvable:
            raise PassError(
                f"{type(unit.student).__name__} is not affine in its windows, or has options that are not",
                hint="train it with distill in the place of solve_fleet",
            )
        for _, term in unit.objective.active():
            if term.target not in ("truth", TEACHER):
                raise PassError(
                    f"the term {term.name} aims at neither truth nor teacher", hint="drop its pass"
                )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.data, Panel) and unit.student is not None
        panel, task, options = unit.data, unit.task, self.options
        sample = labelled(unit)
        grid = self._grid(unit, sample)
        modes: tuple[Mode, ...] = HeadGrid.modes if options.heads == "auto" else (options.heads,)
        most = min(task.lookback - 1, task.horizon * len(panel.ids))
        ranks = tuple(rank for rank in self._ranks(unit) if rank <= most) or (most,)
        context.workspace.mkdir(parents=True, exist_ok=True)
        with one_thread():
            solution = solve_fleet(
                panel,
                task.lookback,
                task.horizon,
                grid,
                HeadGrid(modes, ranks),
                blocks=options.blocks,
                sample=sample,
                default=_default(grid),
                folder=context.workspace,
                progress=context.progress,
            )
        student = fold_low_rank(solution.basis, solution.found.heads).eval()
        fleet = Fleet(
            _names(panel, solution.found.chosen.mode, len(solution.found.heads)), solution.found.slot_of
        )
        metrics = {**table_of(solution), "labelled_windows": 0 if sample is None else len(sample.rows)}
        return PassResult(unit.with_(student=student, objective=Objective(), fleet=fleet), True, metrics)

    def _ranks(self, unit: CompileUnit) -> tuple[int, ...]:
        config = {} if unit.student is None else unit.student.config
        return (int(config["rank"]),) if config.get("maps") == "low-rank" else self.options.ranks

    def _grid(self, unit: CompileUnit, sample: Sample | None) -> Grid:
        teacher = next((term for _, term in unit.objective.active() if term.target == TEACHER), None)
        mixes = () if sample is None or teacher is None else (((TEACHER, 1.0),),)
        taus = tuple(dict.fromkeys((0.0, teacher.tau))) if teacher is not None else ()
        options = self.options
        return Grid(forms=("shared",), ridges=options.ridges, distill=options.lambdas, taus=taus, mixes=mixes)


def labelled(unit: CompileUnit) -> Sample | None:
    """The training windows that the teacher has labelled: all, or as many as its store has, evenly spread."""
    store = unit.teacher_store
    if store is None:
        return None
    assert isinstance(unit.data, Panel)
    windows: PanelWindows = unit.data.windows("train", unit.task.lookback, unit.task.horizon)
    chosen = SpreadWindows(windows, store.counts["train"]).chosen
    labels = np.asarray(store.array("train", "forecast"))[:, 0]
    return Sample(windows.items(chosen), windows.starts(chosen), labels)


def _default(grid: Grid) -> Setting | None:
    """With a teacher its weight is 1 unless windows of the future refute it."""
    if not grid.mixes or 1.0 not in grid.distill:
        return None
    plain = Setting(distill=1.0, tau=grid.taus[0], teachers=grid.mixes[0])
    return plain if plain.ridge in grid.ridges else replace(plain, ridge=grid.ridges[0])


def _names(panel: Panel, mode: Mode, slots: int) -> tuple[str, ...]:
    """Of the slots, all different."""
    others = panel.ids if mode == "items" else tuple(f"cluster {number}" for number in range(1, slots))
    first = FLEET
    while first in others:
        first += "_"
    return (first, *others)
