"""The recipe: everything that determines a compile, typed, versioned, TOML in and out.

Resolved in layers, later ones win:  presets/base.toml <- the student's preset <- the recipe file
<- named arguments <- ``--set key.path=value``.  A student brings its preset
(``Student.preset``).  ``recipe.lock.toml`` is the resolved recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..base.errors import RecipeError, UsageError, unknown_name
from ..base.paths import checked_path
from ..base.reading import read_toml
from ..data.dialect import PLAIN, Dialect, checked_dialect, dialect_text
from ..data.filling import MAX_FILLED
from ..data.levels import levels_problem
from ..data.panel_columns import guess_columns
from ..data.reading import Reading, open_zone
from ..data.synthetic_data import SYNTHETIC
from ..students import STUDENTS
from .settings import Settings, recipe_fields

if TYPE_CHECKING:
    from ..ir.passes import Pass

VERSION = 1
PRESETS = Path(__file__).parent / "presets"
MAX_STEPS = 100_000
"""Of a lookback or a horizon: beyond, one weight matrix of a student fills a machine."""
LOOKS_LIKE_TOML = re.compile(r"""[\[{"']|[+-]?(?:[\d_]+(?:\.[\d_]*)?(?:[eE][+-]?\d+)?|nan|inf)\s*$""")
"""A value of ``--set`` that is meant as TOML: a list, a table, a quoted text or a number."""
MAX_DEPTH = 32
"""Of a recipe file, and of the tables in a recipe: some hundred times what a recipe needs."""


class _Section(BaseModel):
    # TOML has infinity, which the weight of a teacher alone is; JSON alone would make it null.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


def _levels(value: Any) -> Any:
    """Quantile levels of a list or of a text such as ``0.1,0.5,0.9``."""
    listed = [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value
    try:
        levels = tuple(float(each) for each in listed)
    except (TypeError, ValueError):
        raise PydanticCustomError("levels", "expected numbers such as 0.1,0.5,0.9") from None
    if problem := levels_problem(levels):
        raise PydanticCustomError("levels", "{problem}", {"problem": problem})
    return levels


def _as_zone(name: str) -> str:
    try:
        if name:
            open_zone(name)
    except ValueError as error:
        raise PydanticCustomError("zone", "{what}", {"what": str(error)}) from None
    return name


class FormatSection(_Section):
    """How a text file is written, as ``--csv`` says it; empty is what is usual."""

    sep: str = PLAIN.sep
    decimal: str = PLAIN.decimal
    thousands: str = PLAIN.thousands
    dates: str = PLAIN.dates
    encoding: str = PLAIN.encoding
    time: str = PLAIN.time
    sheet: str = PLAIN.sheet

    @model_validator(mode="after")
    def _is_a_dialect(self) -> FormatSection:
        try:
            checked_dialect(self.model_dump())
        except ValueError as error:
            raise PydanticCustomError("dialect", "{what}", {"what": str(error)}) from None
        return self

    @property
    def dialect(self) -> Dialect:
        """The same for a reader."""
        return checked_dialect(self.model_dump())


class TaskSection(_Section):
    """What is forecast, and how the series is read and split."""

    lookback: int = Field(gt=0, le=MAX_STEPS)
    horizon: int = Field(gt=0, le=MAX_STEPS)
    variates: str = "all"
    split: str = "ltsf"
    missing: Literal["error", "ffill", "interpolate"] = "error"
    max_filled: float = Field(default=MAX_FILLED, ge=0, le=1, allow_inf_nan=False)
    """The share of a variate's cells that ``missing`` may fill in; more is refused."""
    calendar: bool = False
    """Try the cycles of the step as inputs, see ``passes/add_inputs.py``."""
    known_columns: str = ""
    past_columns: str = ""
    """Columns ``a,b`` that are read and not forecast: known over the horizon, and up to now."""
    duplicates: Literal["error", "mean", "first"] = "error"
    sort: bool = False
    zone: Annotated[str, AfterValidator(_as_zone)] = ""
    """The zone whose clock the times show; empty for UTC."""
    step: str | None = None
    """Step of the series to come, for ``data = "synthetic"``; a file says its own."""
    quantiles: Annotated[tuple[float, ...], BeforeValidator(_levels)] = ()
    """Levels of the forecast, ascending, 0.5 among them; none is a point forecast."""
    id_column: str | None = None
    """Of data in the long format, which are read as a panel; found where it has one of the usual names."""
    time_column: str | None = None
    value_columns: str | None = None
    """Of the long format, separated by commas; found by their names."""
    holdout_items: float = Field(default=0.0, ge=0, le=0.9, allow_inf_nan=False)
    """Share of a panel's items that is kept out of everything and judged at the end."""

    @property
    def known(self) -> tuple[str, ...]:
        """The names in ``known_columns``."""
        return split_names(self.known_columns)

    @property
    def past(self) -> tuple[str, ...]:
        """The names in ``past_columns``."""
        return split_names(self.past_columns)


def split_names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


class StudentSection(BaseModel):
    """``kind`` and the options of that student's constructor."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str

    @property
    def config(self) -> dict[str, Any]:
        """The options without the kind."""
        return dict(self.model_extra or {})


class MeasureSection(_Section):
    """The latency rule's free choices.

    Attributes:
        duration_s: seconds of measuring per target, both scenarios together.
        min_queries: calls that each candidate gets in each scenario, however long they take.
        teacher_forms: what the teacher is run in: ``eager``, ``onnx``, ``compiled`` (``targets/forms.py``).
        evict_mib: what other work reads and writes between two calls of the interval scenario; by default
            it follows from this machine's caches.
    """

    duration_s: float = Field(default=5.0, gt=0, le=86_400, allow_inf_nan=False)
    min_queries: int = Field(default=64, ge=64, le=10_000_000)
    teacher_forms: tuple[Literal["eager", "onnx", "compiled"], ...] = Field(
        default=("eager", "onnx"), min_length=1
    )
    evict_mib: int | None = Field(default=None, ge=1, le=4096)


def _share(value: Any) -> Any:
    """0.05 for ``"5%"``; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        raise PydanticCustomError("share", "expected a number or a percentage such as 5%") from None


Share = Annotated[float, BeforeValidator(_share), Field(allow_inf_nan=False)]
"""A relative change: 0.05 or ``"5%"``; negative where at least that much less is asked for."""


Finite = Annotated[float, Field(allow_inf_nan=False)]


def _as_path(value: str) -> str:
    try:
        checked_path(value, "")
    except UsageError as error:
        raise PydanticCustomError("path", "{what}", {"what": error.what.rpartition(": ")[2]}) from None
    return value


Name = Annotated[str, AfterValidator(_as_path)]
"""The name or the path of something: it will be looked up as a path."""


def _listed(value: Any) -> Any:
    """A teacher alone is a list of one."""
    return (value,) if isinstance(value, str) else value


def _unlisted(value: tuple[str, ...]) -> str | list[str]:
    return value[0] if len(value) == 1 else list(value)


Teachers = Annotated[
    tuple[Name, ...], BeforeValidator(_listed), Field(min_length=1, max_length=8), PlainSerializer(_unlisted)
]
"""One teacher, ``"A"``, or several, ``["A", "B"]``: the first one is the original."""


class BudgetSection(_Section):
    """Gates; a missed one is exit code 4.

    The ``max_mse_over_...`` are relative to the test MSE of another row: the same student without the
    teacher, the teacher, and the seasonal naive forecast.  The point estimate is judged, not an end of its
    interval: a gate must not pass because a test split is short.  Of a speed-up the lower end is judged.

    Of quantile forecasts ``min_coverage`` is the share of truths between the outermost levels, and
    ``max_wql_increase`` is relative to the teacher's own quantiles, or where it has none to the point student
    with the quantiles of its residuals.

    ``scenario`` says where ``max_p90_us`` and ``min_speedup`` must hold; a noisy measurement holds nothing
    unless ``allow_noisy``.
    """

    max_mse_over_supervised: Share | None = None
    max_mse_over_teacher: Share | None = None
    max_mse_over_naive: Share | None = None
    min_coverage: Share | None = None
    max_wql_increase: Share | None = None
    max_p90_us: Finite | None = None
    min_speedup: Finite | None = None
    scenario: Literal["stream", "interval", "both"] = "stream"
    allow_noisy: bool = False
    max_payload_bytes: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        """``max_mse_increase`` is the old name of ``max_mse_over_teacher``."""
        old, new = "max_mse_increase", "max_mse_over_teacher"
        if not isinstance(values, dict) or old not in values:
            return values
        if new in values:
            raise PydanticCustomError("twice", f"{old} is the old name of {new}: give one of them")
        return {**{name: value for name, value in values.items() if name != old}, new: values[old]}


class Recipe(_Section):
    """A resolved recipe."""

    version: Literal[1]
    teacher: Teachers
    teacher_options: dict[str, Any] = Field(default_factory=dict)
    """Of its family; with several teachers a table for each, by the teacher's name."""
    teacher_store: Name | None = None
    data: Name
    seed: int = Field(ge=0, lt=1 << 63)
    threads: int = Field(gt=0, le=1024)
    baseline: bool
    refit: Literal["none", "train+val", "all"] = "none"
    statistics: bool = True
    """Leave what an affine student was solved from beside the artifacts, for ``update``."""
    with_teacher: bool = False
    """Put the teacher's portable form into the artifacts, so that a device can measure both."""
    licence_policy: Literal["warn", "commercial"]
    task: TaskSection
    data_format: FormatSection = FormatSection()
    student: StudentSection
    pipeline: tuple[str, ...]
    passes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    targets: tuple[str, ...] = Field(min_length=1)
    target_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    measure: MeasureSection = MeasureSection()
    budget: BudgetSection = BudgetSection()

    def options_of(self, teacher: str) -> dict[str, Any]:
        """The family's options of one of the teachers."""
        return self.teacher_options if len(self.teacher) == 1 else dict(self.teacher_options.get(teacher, {}))

    @property
    def reading(self) -> Reading:
        """How the data are read, and new rows at the artifact."""
        task = self.task
        return Reading(task.missing, task.duplicates, task.sort, task.zone, self.data_format.dialect)

    def to_toml(self) -> str:
        """Stable TOML text; reading it gives an equal recipe."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def reading_settings(recipe: Recipe) -> dict[str, Any]:
    """How a recipe reads its data, as ``survey`` and ``load_data`` take it; what is as usual is left out."""
    reading = recipe.reading
    settings = {**reading._asdict(), "csv": dialect_text(reading.dialect), "variates": recipe.task.variates}
    del settings["dialect"]
    usual = {
        "missing": "error",
        "duplicates": "error",
        "sort": False,
        "zone": "",
        "csv": "",
        "variates": "all",
    }
    return {name: value for name, value in settings.items() if value != usual[name]}


def make_recipe(**settings: Unpack[Settings]) -> Recipe:
    """The resolved recipe of the settings of a call.

    Raises:
        RecipeError: naming the field, what was given and what is expected.
        UsageError: a device, and no target that has devices.
    """
    file, device = settings.get("recipe"), settings.get("device")
    budgets = [_budget(text) for text in settings.get("budget", ())]
    resolved = resolve(
        file=None if file is None else checked_path(file, "--recipe"),
        named=recipe_fields(settings),
        settings=(*settings.get("set", ()), *budgets),
    )
    return on_device(resolved, device) if device else resolved


def _budget(text: str) -> str:
    """A gate as the setting that it is short for.

    Raises:
        RecipeError: it has no value.
    """
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise RecipeError(
            f"--budget {text!r}: expected NAME=VALUE, e.g. max_mse_over_teacher=5%",
            hint=f"gates are {', '.join(BudgetSection.model_fields)}",
        )
    return f"budget.{text}"


def on_device(recipe: Recipe, device: str) -> Recipe:
    """The recipe with ``device`` for every target that has devices.

    Raises:
        UsageError: none of the recipe's targets has.
    """
    from ...targets import TARGETS

    options = {kind: dict(given) for kind, given in recipe.target_options.items()}
    kinds = [kind for kind in recipe.targets if "device" in TARGETS[kind].Options.model_fields]
    if not kinds:
        raise UsageError(
            f"--device {device}: target {', '.join(recipe.targets)} has no devices", hint="see tsfmc targets"
        )
    for kind in kinds:
        options.setdefault(kind, {})["device"] = device
    return recipe.model_copy(update={"target_options": options})


def resolve(
    *, file: Path | None = None, named: Mapping[str, Any] | None = None, settings: Iterable[str] = ()
) -> Recipe:
    """The recipe of all layers.

    Args:
        file: a recipe in TOML.
        named: values by dotted path, from the command line's own options; None values are left out.
        settings: ``key.path=value`` strings; a value is read as TOML, and as text where that fails.

    Raises:
        RecipeError: naming the field, what was given and what is expected.
    """
    given = _read(file) if file else {}
    if given.get("version", VERSION) != VERSION:
        raise RecipeError(
            f"{file}: recipe version {given['version']!r}, this tsfmc reads version {VERSION}",
            hint=f"set version = {VERSION}",
        )
    overrides: dict[str, Any] = {}
    for path, value in (named or {}).items():
        if value is not None:
            _put(overrides, path, value)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise RecipeError(f"--set {setting!r}: expected key.path=value, e.g. passes.distill.epochs=4")
        _put(overrides, path.strip(), _value(path.strip(), text.strip()))
    user = _merge(given, overrides)
    base = _read(PRESETS / "base.toml")
    preset = _merge(base, _preset(_merge(base, user).get("student")))
    if user.get("data") == SYNTHETIC:
        preset = _merge(preset, _read(PRESETS / "synthetic.toml"))
    preset = _of_panel(preset, user)
    merged = _merge(preset, user)
    _refuse_nan(merged)
    _keep_options_of_pipeline(merged, user)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, file) from None
    _check_several(recipe)
    return recipe


def _check_several(recipe: Recipe) -> None:
    """What goes with one teacher alone, where there are several."""
    if len(recipe.teacher) == 1:
        return
    if recipe.teacher_store is not None:
        raise RecipeError(
            f"teacher_store: the outputs of one teacher, and there are {len(recipe.teacher)} teachers",
            hint="name the store's folder as one of them: --teacher A --teacher STORE",
        )
    for name, options in recipe.teacher_options.items():
        if name not in recipe.teacher or not isinstance(options, dict):
            raise RecipeError(
                f"teacher_options.{name}: with several teachers, expected a table for each of them by name",
                hint=f"the teachers are {', '.join(recipe.teacher)}",
            )


def _of_panel(preset: dict[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """The preset for what ``user`` names as data: another one where they are many series in one table."""
    task: Any = user.get("task", {})
    named = task.get("id_column") if isinstance(task, dict) else None
    if named is None:
        guessed = guess_columns(str(user.get("data", "")))
        named = guessed and guessed.id
    if named is None:
        return preset
    fleet = _read(PRESETS / "panel.toml")
    if preset["student"]["kind"] != "dlinear":
        del fleet["pipeline"]  # students that are trained take the windows of a panel as any others
    return _merge(_merge(preset, fleet), {"task": {"id_column": named}})


def check_refit(recipe: Recipe, passes: Iterable[Pass]) -> None:
    """What a user asks for must act.

    Raises:
        RecipeError: a refit is asked for and no pass does one.
    """
    if recipe.refit != "none" and not any("judged" in step.writes for step in passes):
        raise RecipeError(
            f"refit: {recipe.refit!r}, and no pass of the pipeline solves a student again",
            hint="put a pass that refits into the pipeline (tsfmc passes), or leave refit out",
        )


def check_inputs(recipe: Recipe, passes: Iterable[Pass]) -> None:
    """What a user asks for must act.

    Raises:
        RecipeError: inputs are asked for, and nothing would learn from them or supply them.
    """
    task = recipe.task
    if not (task.calendar or task.known or task.past):
        return
    if recipe.data == SYNTHETIC:
        raise RecipeError("task: synthetic windows have neither a calendar nor columns", hint="give data")
    if not any("effect" in step.writes for step in passes):
        raise RecipeError(
            "task: this pipeline does not learn from a calendar or from columns",
            hint="leave them out, or use an affine student, whose pipeline has add_inputs",
        )
    if recipe.with_teacher:
        raise RecipeError(
            "with_teacher: a teacher without inputs cannot be timed beside an artifact that has some",
            hint="leave with_teacher out, or the inputs",
        )


def check_quantiles(recipe: Recipe, passes: Iterable[Pass]) -> None:
    """What a user asks for must act.

    Raises:
        RecipeError: quantiles are asked for and no pass makes any, or none could be judged.
    """
    if recipe.task.quantiles and recipe.data == SYNTHETIC:
        raise RecipeError(
            "task.quantiles: synthetic windows have no truth to take quantiles from",
            hint="leave quantiles out, or give data",
        )
    if recipe.task.quantiles and not any("head" in step.writes for step in passes):
        raise RecipeError(
            "task.quantiles: no pass of the pipeline makes quantiles",
            hint="put add_quantiles at the end of the pipeline, or leave quantiles out",
        )


def check_teachers(recipe: Recipe, passes: Iterable[Pass]) -> None:
    """Teachers beside the first one must act.

    Raises:
        RecipeError: there are several, and no pass sums what they say.
    """
    mixes = any("companions" in step.reads and "statistics" in step.writes for step in passes)
    if len(recipe.teacher) > 1 and not mixes:
        raise RecipeError(
            f"teacher: {len(recipe.teacher)} teachers, and this pipeline learns from one",
            hint="give one, or an affine student, which is solved for a mix of them (--student dlinear)",
        )


def pass_options(
    recipe: Recipe, name: str, options: type[BaseModel], follow: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of one pass: ``[passes.<name>]``, over what follows from the rest of the recipe.

    Raises:
        RecipeError: an option that the pass does not have, or a value of the wrong type.
    """
    given = {**follow, **recipe.passes.get(name, {})}
    try:
        options.model_validate(given)
    except ValidationError as error:
        raise _explain(error, None, options, f"passes.{name}.") from None
    return given


def _preset(student: Any) -> Mapping[str, Any]:
    """What the student brings, built in or of another package; an unknown kind is refused later."""
    kind = student.get("kind") if isinstance(student, dict) else None
    if kind == "none":
        return _read(PRESETS / "none.toml")
    if not isinstance(kind, str) or kind not in STUDENTS:
        return {}
    preset: Mapping[str, Any] = STUDENTS[kind].preset(kind)
    return preset


def _keep_options_of_pipeline(merged: dict[str, Any], user: Mapping[str, Any]) -> None:
    """Presets may hold options of passes that this pipeline leaves out; what a user gives must act."""
    pipeline, passes = merged.get("pipeline"), merged.get("passes")
    if not isinstance(pipeline, list | tuple) or not isinstance(passes, dict):
        return
    given = user.get("passes", {})
    if not isinstance(given, dict):
        return  # refused as what it is
    for name in [name for name in passes if name not in pipeline]:
        if name in given:
            wrong = unknown_name("pass of this pipeline", name, [str(step) for step in pipeline])
            raise RecipeError(f"passes.{name}: {wrong.what}", hint=wrong.hint)
        del passes[name]


def _read(path: Path) -> dict[str, Any]:
    hint = "" if path.is_file() else "check the path given to --recipe"
    return read_toml(path, what="recipe", error=RecipeError, hint=hint, finite=False)


def _value(path: str, text: str) -> Any:
    """What TOML makes of it; what does not look like TOML is text without its quotes."""
    try:
        return read_toml(f"value = {text}", what=f"--set {path}", error=RecipeError, finite=False)["value"]
    except RecipeError:
        if LOOKS_LIKE_TOML.match(text):
            raise
        return text


def _put(table: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    if len(parents) >= MAX_DEPTH or not all((*parents, leaf)):
        raise RecipeError(
            f"--set {path}: expected names separated by dots, at most {MAX_DEPTH} of them",
            hint="for example passes.distill.epochs=4",
        )
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{path}: {parent} is a value, not a section")
    table[leaf] = value


def _refuse_nan(value: Any, where: str = "") -> None:
    """NaN equals nothing and passes every ``value > limit``: no field means it."""
    if isinstance(value, float) and math.isnan(value):
        raise RecipeError(f"{where}: got nan", hint="expected a number")
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_nan(inner, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_nan(inner, where)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(
    error: ValidationError, file: Path | None, model: type[BaseModel] = Recipe, prefix: str = ""
) -> RecipeError:
    first = error.errors()[0]
    field = prefix + ".".join(str(part) for part in first["loc"])
    where = f"{file}: " if file else ""
    if first["type"] == "extra_forbidden":
        section: Any = model
        for part in first["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        wrong = unknown_name("recipe field", field, (f"{prefix}{known}" for known in section.model_fields))
        return RecipeError(f"{where}{wrong.what}", hint=wrong.hint)
    if first["type"] in ("model_type", "model_attributes_type"):
        return RecipeError(
            f"{where}{field}: got {first['input']!r}, expected a section",
            hint=f"name its fields, such as {field}.{next(iter(_fields_of(model, field)), 'name')}=...",
        )
    return RecipeError(f"{where}{field}: got {first['input']!r}: {first['msg'].lower()}")


def _fields_of(model: type[BaseModel], field: str) -> Iterable[str]:
    section = model.model_fields[field].annotation if field in model.model_fields else None
    return section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else ()
