"""The small text tables beside images: CSV files, tab-separated lists, class names and boxes, with errors that name the
line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

from contrex.errors import DataError

EDGES = ("xmin", "ymin", "xmax", "ymax")
"""The columns of a box."""

MAX_CLASSES = 1_000_000
"""The most classes that are numbered where nothing names them: one wrong label must not fill the memory with names."""


def read_classes(file: Path) -> list[tuple[str, str]]:
    """Read the folder and the name of each class, by index; in a plain list the name stands for both."""
    lines = [(n, text.split("\t")) for n, text in enumerate(_text(file).splitlines(), start=1) if text.strip()]
    if all(len(fields) == 1 for _, fields in lines):
        return [(fields[0].strip(), fields[0].strip()) for _, fields in lines]
    names: dict[int, tuple[str, str]] = {}
    for line, fields in lines:
        if len(fields) != 3:
            raise DataError(f"'{file}', line {line}: expected index<TAB>folder<TAB>name, or one name on each line")
        names[parse_integer(file, line, fields[0])] = (fields[1].strip(), fields[2].strip())
    if sorted(names) != list(range(len(lines))):
        raise DataError(f"'{file}': the indices must be 0..{len(lines) - 1}, each once")
    return [names[index] for index in range(len(lines))]


def numbered_classes(num_classes: int, source: str, *, first: int = 0) -> list[str]:
    """Names for classes without any: their numbers, from `first` on. `source` is what has their labels.

    Raises `DataError` for more than `MAX_CLASSES`.
    """
    if num_classes > MAX_CLASSES:
        raise DataError(
            f"{source} has the label {num_classes - 1 + first}, too large to be the number of a class: without names, "
            f"there are at most {MAX_CLASSES} classes. Renumber them."
        )
    return [str(number) for number in range(first, first + num_classes)]


def read_tabbed(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Read the number and the fields of each line of a tab-separated list without a header, but empty ones."""
    for line, text in enumerate(_text(file).splitlines(), start=1):
        fields = [part.strip() for part in text.split("\t")]
        if len(fields) == len(columns):
            yield line, fields
        elif text.strip():
            raise DataError(f"'{file}', line {line}: expected {'<TAB>'.join(columns)}, got {text!r}")


def read_spaced(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Read the number and the fields of each line of a list with spaces between its columns, and perhaps more of them
    in the last column; empty lines are left out."""
    for line, text in enumerate(_text(file).splitlines(), start=1):
        fields = text.split(maxsplit=len(columns) - 1)
        if len(fields) == len(columns):
            yield line, [part.strip() for part in fields]
        elif text.strip():
            raise DataError(f"'{file}', line {line}: expected {' '.join(columns)}, got {text!r}")


def read_records(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the line number and the fields of each row; fields that a short row lacks are empty."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True, restval="")
            for row in reader:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{file}' is not a readable UTF-8 table: {error}") from error


def read_columns(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream, skipinitialspace=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{file}' is not a readable UTF-8 table: {error}") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"'{file}' is not UTF-8 text: {error}") from error


def parse_integer(file: Path, line: int, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"'{file}', line {line}: expected a whole number as class index, got {text!r}") from None


def parse_number(file: Path, line: int, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise DataError(f"'{file}', line {line}: {name} must be a number, got {text!r}")
    return number


def parse_box(file: Path, line: int, texts: Sequence[str], *, inclusive: bool) -> list[float]:
    """The edges `xmin, ymin, xmax, ymax` of a box; `inclusive` maxima are the last pixels inside it."""
    sides = zip(EDGES, texts, strict=True)
    xmin, ymin, xmax, ymax = (parse_number(file, line, name, text) for name, text in sides)
    xmax, ymax = xmax + inclusive, ymax + inclusive
    if xmax <= xmin or ymax <= ymin:
        hint = "" if inclusive else " (are the maxima the last pixels inside? Then set `inclusive_boxes`)"
        raise DataError(
            f"'{file}', line {line}: the box {', '.join(texts)} is empty; xmax and ymax must be larger than xmin and "
            f"ymin{hint}"
        )
    return [xmin, ymin, xmax, ymax]
