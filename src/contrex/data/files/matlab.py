"""The MATLAB files of data sets, as plain arrays and text; nothing in them is executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrex.errors import DataError


def read_matlab(file: Path) -> dict[str, Any]:
    """Read the variables of a MATLAB file, with arrays of one element as that element, and structs as records.

    Raises `DataError` for a missing or damaged file, and for the HDF5 files that MATLAB writes since 7.3.
    """
    from scipy.io import loadmat  # type: ignore[import-untyped]  # loads slowly

    try:
        with file.open("rb") as stream:
            variables = loadmat(stream, squeeze_me=True)
    except Exception as error:  # a damaged file makes scipy raise almost anything
        raise DataError(f"'{file}' is not a readable MATLAB file: {error}. Unpack it again.") from error
    return {name: value for name, value in variables.items() if not name.startswith("__")}


def matlab_array(file: Path, variables: dict[str, Any], name: str) -> Any:
    """The variable `name`, with at least one axis; raises `DataError` where the file lacks it."""
    if name not in variables:
        raise DataError(f"'{file}' has no variable '{name}', it has {', '.join(variables) or 'none'}. Unpack it again.")
    return np.atleast_1d(variables[name])


def matlab_rows(file: Path, rows: Any, fields: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Read the number, from 1 on, and the `fields`, as text, of each element of a struct array; raises `DataError` for
    a missing field."""
    present = rows.dtype.names or ()
    missing = [name for name in fields if name not in present]
    if missing:
        raise DataError(
            f"'{file}': its rows have no field {', '.join(missing)}; they have {', '.join(present) or 'none'}"
        )
    for number, row in enumerate(rows, start=1):
        yield number, [str(row[name]) for name in fields]
