"""Data for an artifact that is there already: read as its compile read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.errors import DataError
from .dataset import Dataset
from .load import load_data
from .reading import checked_reading
from .remedies import RepairableError


def load_as_compiled(data: str, task: Mapping[str, Any], **options: Any) -> Dataset:
    """``load_data`` with the variates and the reading of an artifact's task.

    Raises:
        DataError: the data are not of the form of those that the artifact was compiled on; no option helps.
    """
    fields = checked_reading(task)._asdict()
    dialect = fields.pop("dialect")
    names = ",".join(task["variates"])
    try:
        return load_data(data, variates=names, csv=dialect, max_filled=1.0, **fields, **options)
    except RepairableError as error:
        hint = "give data of the form of those that the artifact was compiled on"
        raise DataError(error.what, hint=hint) from error
