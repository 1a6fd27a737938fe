"""The small text tables beside image folders: CSV files and lists of class names, with errors that name the line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from contrex.errors import DataError


def read_classes(file: Path) -> list[tuple[str, str]]:
    """Folder and name of each class by index; in a plain list the name stands for both."""
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


def read_records(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of every row; fields that a short row lacks are empty."""
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
