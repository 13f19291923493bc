"""What a recipe asks of its targets, checked."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ...targets import TARGETS
from ...targets.base import Target, TargetOptions
from ..base.errors import MissingError, RecipeError
from .build import Job
from .recipe import Recipe


def target_job(recipe: Recipe, kind: str, final: Path) -> Job:
    """What a recipe asks of one target.

    Raises:
        UsageError: an unknown target.
        RecipeError: options that it does not have.
    """
    target: Target = TARGETS[kind]
    return Job(target, target_options(recipe, kind), recipe, final)


def target_options(recipe: Recipe, kind: str) -> TargetOptions:
    """The options of one target.

    Raises:
        UsageError: an unknown target.
        RecipeError: options that it does not have.
    """
    try:
        options: TargetOptions = TARGETS[kind].Options(**recipe.target_options.get(kind, {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(("target_options", kind, *(str(part) for part in first["loc"])))
        raise RecipeError(f"{field}: got {first['input']!r}: {first['msg'].lower()}") from None
    return options


def require_targets(recipe: Recipe) -> None:
    """Checks before anything long starts that every target can lower here.

    Raises:
        MissingError: one cannot.
        UsageError: one cannot with its options.
    """
    for kind in recipe.targets:
        here = TARGETS[kind].probe()
        if not here.can_lower:
            raise MissingError(
                f"target {kind} cannot lower here: {here.problems[0]}", hint="see tsfmc doctor"
            )
        TARGETS[kind].require(target_options(recipe, kind))
