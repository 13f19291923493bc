"""Recipes: layers, round trip, and errors that name the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsfmc.compiler.base.errors import RecipeError, UsageError
from tsfmc.compiler.data.dialect import Dialect
from tsfmc.compiler.driver.pipeline import build_passes
from tsfmc.compiler.driver.recipe import make_recipe, resolve
from tsfmc.compiler.driver.settings import known_settings


def test_defaults_are_the_method() -> None:
    recipe = resolve()
    assert recipe.pipeline == (
        "record_teacher",
        "build_student",
        "weight_horizons",
        "gather_statistics",
        "add_prior",
        "solve_affine",
        "add_inputs",
        "refit_affine",
        "fold_affine",
        "add_quantiles",
    )
    assert (recipe.task.lookback, recipe.task.horizon, recipe.seed, recipe.threads) == (512, 96, 0, 1)


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        'version = 1\nseed = 1\n[student]\nkind = "itransformer"\nwidth = 64\n[passes.distill]\nepochs = 7\n'
    )
    recipe = resolve(file=file, named={"seed": 2, "teacher": None}, settings=["passes.distill.epochs=3"])
    assert recipe.seed == 2 and recipe.teacher == ("fracast",)
    assert recipe.student.config["width"] == 64 and recipe.student.config["heads"] == 4
    assert recipe.passes["distill"]["epochs"] == 3


def test_round_trip(tmp_path: Path) -> None:
    recipe = resolve(named={"student.kind": "itransformer"}, settings=["budget.max_mse_increase=5%"])
    assert recipe.budget.max_mse_over_teacher == pytest.approx(0.05)
    lock = tmp_path / "recipe.lock.toml"
    lock.write_text(recipe.to_toml())
    assert resolve(file=lock) == recipe


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("task.lookbak=3", r"task\.lookbak.*did you mean 'lookback'"),
        ("task.lookback=0", r"task\.lookback: got 0"),
        ("task.lookback=many", r"task\.lookback: got 'many'"),
        ("budget.max_mse_increase=abc", "expected a number or a percentage"),
        ("nonsense", r"expected key\.path=value"),
        ("seed.x=1", r"seed: got"),
        ("version=2", "version"),
    ],
)
def test_bad_fields(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        resolve(settings=[setting])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        resolve(file=tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("a = [")
    with pytest.raises(RecipeError, match="not TOML"):
        resolve(file=tmp_path / "broken.toml")


def test_pass_options_are_checked() -> None:
    with pytest.raises(RecipeError, match=r"passes\.distill\.epocs.*did you mean 'passes\.distill\.epochs'"):
        build_passes(resolve(named={"student.kind": "itransformer"}, settings=["passes.distill.epocs=4"]))
    with pytest.raises(UsageError, match=r"passes\.distil: unknown pass of this pipeline"):
        build_passes(resolve(settings=["passes.distil.epochs=4"]))


def test_settings_and_recipe_are_one_table() -> None:
    """Every setting that names a field of the recipe reaches exactly that field."""
    given = {
        "teacher": "t", "data": "d", "target": "tvm", "student": "itransformer", "lookback": 7, "horizon": 3,
        "variates": "a", "step": "h", "split": "1,1,1", "missing": "ffill", "max_filled": 0.4, "refit": "all",
        "id_column": "meter", "time_column": "when", "value_columns": "a,b", "holdout_items": 0.2,
        "duplicates": "mean", "sort": True, "zone": "Europe/Berlin", "csv": "sep=;,decimal=,",
        "teacher_store": Path("s"), "licence_policy": "commercial",
        "calendar": True, "known_columns": "p,q", "past_columns": "w",
        "quantiles": (0.1, 0.5, 0.9), "baseline": False, "with_teacher": True, "seed": 5, "threads": 2,
        "pipeline": ("build_student",),
        "passes": {"build_student": {"lambda_kd": 2.0}},
    }  # fmt: skip
    fields = {name: setting.path for name, (setting, _) in known_settings().items() if setting.path}
    assert set(fields) == set(given)
    recipe = make_recipe(**given).model_dump()
    for name, path in fields.items():
        value = recipe
        for part in path.split("."):
            value = value[part]
        dialect = Dialect(sep=";", decimal=",")._asdict()
        expected = {"target": ("tvm",), "teacher_store": "s", "csv": dialect}.get(name, given[name])
        assert value == expected, name


def test_an_unknown_setting_is_a_wrong_keyword() -> None:
    with pytest.raises(TypeError, match="unknown setting 'lookbak'"):
        make_recipe(lookbak=3)  # type: ignore[call-arg]


def test_a_device_goes_to_the_targets_that_have_devices() -> None:
    recipe = make_recipe(target=["onnx", "tvm"], device="raspberry-pi-4")
    assert recipe.target_options == {"tvm": {"device": "raspberry-pi-4"}}
    with pytest.raises(UsageError, match="target onnx has no devices"):
        make_recipe(device="raspberry-pi-4")


def test_a_long_table_is_a_panel_and_its_recipe_says_so(tmp_path: Path) -> None:
    long = tmp_path / "meters.csv"
    long.write_text("item_id,timestamp,target\na,2024-01-01,1\na,2024-01-02,2\n")
    found = resolve(named={"data": str(long)})
    assert found.task.id_column == "item_id" and "solve_fleet" in found.pipeline
    assert found.passes["record_teacher"]["train_windows"] == 20000
    trained = resolve(named={"data": str(long), "student.kind": "itransformer"})
    assert trained.task.id_column == "item_id" and "distill" in trained.pipeline
    wide = tmp_path / "wide.csv"
    wide.write_text("date,a,b\n2024-01-01,1,2\n")
    assert "solve_fleet" not in resolve(named={"data": str(wide)}).pipeline
    assert "solve_fleet" in resolve(named={"data": str(wide), "task.id_column": "a"}).pipeline
