"""Several teachers in one compile: what each is, what the mix of them is, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from factory import HORIZON, LOOKBACK, TINY_TTM, write_series, write_teacher
from tiny_teachers import TINY

import tsfmc
from tsfmc.compiler import api
from tsfmc.compiler.api import make_recipe
from tsfmc.compiler.base.errors import LicenceError, PassError, RecipeError, TsfmcError, UsageError
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.cli import cli
from tsfmc.compiler.driver.manifest import licence_of
from tsfmc.compiler.driver.recipe import Recipe
from tsfmc.compiler.driver.summary import summary_lines
from tsfmc.compiler.frontends import build_teacher, save_teacher
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.labels import teacher_stores
from tsfmc.compiler.learning.statistics import WindowStatistics

SMALL = {"lookback": LOOKBACK, "horizon": HORIZON}
FAST = [
    "measure.duration_s=0.05", "measure.teacher_forms=['eager']",
    "passes.solve_affine.ranks=[3]", "passes.solve_affine.ridges=[10.0]",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers of different families, one whose horizon is 6, and a series."""
    folder = tmp_path_factory.mktemp("teachers")
    write_series(folder / "series.csv")
    write_teacher(folder / "mixer")
    torch.manual_seed(5)
    timer = build_teacher(TINY["timer"][0], lookback=LOOKBACK, horizon=HORIZON, variates=3)
    save_teacher(timer, folder / "timer")
    limited = build_teacher(TINY["moirai-2"][0], lookback=LOOKBACK, horizon=HORIZON, variates=3)
    save_teacher(limited, folder / "limited")
    short = {**TINY_TTM, "prediction_length": HORIZON // 2}
    save_teacher(build_teacher(short, lookback=LOOKBACK, horizon=HORIZON // 2, variates=3), folder / "short")
    return folder


def recipe(made: Path, *teachers: str, **more: Any) -> Recipe:
    names = [made / name for name in teachers]
    settings = [*FAST, *more.pop("set", [])]
    return make_recipe(teacher=names, data=made / "series.csv", set=settings, **SMALL, **more)


def solved(made: Path, *teachers: str, **more: Any) -> CompileUnit:
    return api.transform(recipe(made, *teachers, **more), stop_after="solve_affine")


def test_each_teacher_labels_a_store_and_has_sums_of_its_own(made: Path) -> None:
    unit = solved(made, "mixer", "timer")
    stores = teacher_stores(unit)
    assert list(stores) == ["teacher", "timer"] and unit.teacher_info is not None
    assert [store.info.name for store in stores.values()] == ["mixer", "timer"]
    assert unit.teacher_info.name == "mixer", "the first one is the original"
    statistics = unit.statistics
    assert isinstance(statistics, WindowStatistics) and statistics.targets == ("truth", "teacher", "timer")
    sums = statistics.all()
    past, _ = unit.data.windows("train", LOOKBACK, HORIZON).batch(range(statistics.windows))
    x = (past - past.mean(-1, keepdim=True)).double()
    for name, store in stores.items():
        y = store.forecast("train", range(statistics.windows)).double() - past.double().mean(-1, keepdim=True)
        torch.testing.assert_close(sums.cross[name], torch.einsum("ndl,ndh->dlh", x, y), rtol=1e-4, atol=1e-3)


def test_the_order_of_teachers_changes_names_and_not_the_choice(made: Path) -> None:
    """With the same cache: nothing of the one is taken for the other."""
    one, other = solved(made, "mixer", "timer"), solved(made, "timer", "mixer")
    assert one.record[-1].metrics["teachers"].keys() <= {"teacher", "timer"}
    assert other.record[-1].metrics["teachers"].keys() <= {"teacher", "mixer"}
    names = {"teacher": "mixer", "timer": "timer"}, {"teacher": "timer", "mixer": "mixer"}
    tables = [
        {
            tuple(sorted((called[name], share) for name, share in row["teachers"].items())): row["log_ratio"]
            for row in unit.record[-1].metrics["mixes"]
        }
        for unit, called in zip((one, other), names, strict=True)
    ]
    assert tables[0].keys() == tables[1].keys() and len(tables[0]) == 5
    assert all(tables[0][mix] == pytest.approx(tables[1][mix], rel=1e-6) for mix in tables[0])


def test_a_fixed_weight_is_of_the_mix(made: Path) -> None:
    """Nothing else searched: lambda is the recipe's; of weight 0 there is no mix to choose."""
    unit = solved(made, "mixer", "timer", set=["passes.solve_affine.search=[]"])
    metrics = unit.record[-1].metrics
    assert metrics["lambda"] == 1.0 and sum(metrics["teachers"].values()) == pytest.approx(1)
    none = solved(made, "mixer", "timer", set=["passes.solve_affine.lambdas=[0.0]"])
    assert none.record[-1].metrics["lambda"] == 0 and "mixes" not in none.record[-1].metrics


def test_a_store_that_was_taught_ahead_is_one_of_them(made: Path, tmp_path: Path) -> None:
    weights = solved(made, "mixer", "timer")
    taught = teacher_stores(weights)["timer"]
    shutil.copytree(taught.folder, tmp_path / "store")
    with_store = make_recipe(
        teacher=[made / "mixer", tmp_path / "store"], data=made / "series.csv", set=FAST, **SMALL
    )
    unit = api.transform(with_store, stop_after="solve_affine")
    assert teacher_stores(unit)["timer"].key == taught.key
    assert unit.companions[0].teacher is None and unit.companions[0].info.family == "timer"
    assert unit.record[-1].metrics["mixes"] == weights.record[-1].metrics["mixes"]
    first = make_recipe(
        teacher=[tmp_path / "store", made / "mixer"], data=made / "series.csv", set=FAST, **SMALL
    )
    swapped = api.transform(first, stop_after="gather_statistics")
    assert swapped.teacher is None and list(teacher_stores(swapped)) == ["teacher", "mixer"]


def test_the_artifact_names_all_of_them(made: Path, tmp_path: Path) -> None:
    result = api.compile_recipe(
        recipe(made, "mixer", "timer", baseline=False, set=["passes.solve_affine.lambdas=[1.0]"]),
        out=tmp_path / "out",
        progress=Silent(),
    )
    manifest = result.manifests["onnx"]
    assert manifest["teacher"]["name"] == "mixer"
    (further,) = manifest["further_teachers"]
    assert further["as"] == further["name"] == "timer" and len(further["sha256"]) == 64
    assert manifest["licence"]["commercial"] is True
    assert manifest["accuracy"]["teachers"].keys() == {"timer"}
    assert manifest["accuracy"]["teachers"]["timer"]["mse"] > 0
    lines = "\n".join(summary_lines(manifest))
    assert "teacher    timer, " in lines and "teachers   " in lines and "teacher, timer" in lines
    locked = (tmp_path / "out/recipe.lock.toml").read_text()
    again = make_recipe(recipe=tmp_path / "out/recipe.lock.toml")
    assert again.to_toml() == locked and len(again.teacher) == 2
    assert tsfmc.load(tmp_path / "out/onnx").forecast(np.zeros((3, LOOKBACK), np.float32)).shape == (3, 12)

    rows = write_series(tmp_path / "more.csv", rows=900).read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join([rows[0], *rows[701:]]))
    updated = api.update(tmp_path / "out/onnx", tmp_path / "new.csv", tmp_path / "updated")
    assert updated.manifest["further_teachers"] == manifest["further_teachers"]
    assert updated.manifest["licence"] == manifest["licence"]


def test_the_licence_policy_is_of_all(made: Path) -> None:
    """A teacher that may not be used commercially taints the mix, wherever it stands."""
    for order in (("mixer", "limited"), ("limited", "mixer")):
        with pytest.raises(LicenceError, match="limited"):
            api.transform(recipe(made, *order, licence_policy="commercial"), stop_after="import")
    unit = api.transform(recipe(made, "mixer", "limited"), stop_after="import")
    assert any("limited" in warning for warning in unit.warnings)
    assert unit.teacher_info is not None
    found = licence_of([unit.teacher_info, unit.companions[0].info])
    assert found["commercial"] is False and "AND CC-BY-NC" in found["spdx"]
    assert "CC-BY-NC" in found["warning"]


@pytest.mark.parametrize(
    ("teachers", "error", "words"),
    [
        (("mixer", "mixer"), UsageError, "have the same weights"),
        (("mixer", "short"), TsfmcError, "short"),
        (("mixer", "nowhere"), TsfmcError, "nowhere"),
    ],
)
def test_what_cannot_be_mixed_is_refused(
    made: Path, teachers: tuple[str, ...], error: type[TsfmcError], words: str
) -> None:
    with pytest.raises(error, match=words):
        api.transform(recipe(made, *teachers), stop_after="import")


def test_what_several_teachers_go_with(made: Path) -> None:
    both = {"teacher": [made / "mixer", made / "timer"], "data": made / "series.csv", **SMALL}
    for student in ("itransformer", "none"):
        with pytest.raises(RecipeError, match="2 teachers, and this pipeline learns from one"):
            api.transform(make_recipe(student=student, **both))
    with pytest.raises(RecipeError, match="outputs of one teacher"):
        recipe(made, "mixer", "timer", teacher_store="x")
    with pytest.raises(RecipeError, match=r"teacher_options\.patch_size"):
        recipe(made, "mixer", "timer", set=["teacher_options.patch_size=8"])
    with pytest.raises(UsageError, match="a store holds the outputs of one teacher"):
        api.teach(recipe(made, "mixer", "timer"), made / "both")
    trained = ["record_teacher", "build_student", "gather_statistics", "distill"]
    with pytest.raises(PassError, match="2 teachers, and a student that is trained"):
        api.transform(make_recipe(pipeline=trained, **both))


def test_a_branch_is_trained_with_the_mix(made: Path) -> None:
    unit = api.transform(
        recipe(
            made, "mixer", "timer", student="residual",
            set=["passes.distill.epochs=1", "passes.solve_affine.lambdas=[1.0]"],
        )
    )  # fmt: skip
    trained = next(entry for entry in unit.record if entry.name == "distill")
    assert trained.metrics["shipped"] in ("affine", "branch")


def test_teachers_on_the_command_line(made: Path) -> None:
    asked = [f"--teacher={made / name}" for name in ("mixer", "timer")]
    small = ["--lookback", str(LOOKBACK), "--horizon", str(HORIZON), "--data", str(made / "series.csv")]
    done = CliRunner().invoke(cli, ["compile", *asked, *small, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert plan["recipe"]["teacher"] == [str(made / "mixer"), str(made / "timer")]
    alone = CliRunner().invoke(cli, ["compile", asked[0], *small, "--dry-run", "--json"])
    assert json.loads(alone.stdout)["recipe"]["teacher"] == str(made / "mixer")


def test_what_has_to_be_given_has_no_default() -> None:
    text = " ".join(CliRunner().invoke(cli, ["teach", "--help"]).output.split())
    assert "teacher store; may be repeated: a mix of them is chosen. [required]" in text


def test_a_gate_without_a_value_is_named_as_it_was_given() -> None:
    for gate in ("foo", "max_mse_over_teacher=", "=5%"):
        with pytest.raises(RecipeError, match=f"--budget '{gate}': expected NAME=VALUE"):
            make_recipe(budget=[gate])
