"""The contact sheets of runs, pictures of what they were trained on, inside the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from contrex.report.groups import RunGroup


@dataclass(frozen=True)
class RunSheets:
    """The contact sheets of one method: (title, data URI), in the order of the record."""

    series: int
    label: str
    sheets: Sequence[tuple[str, str]]


def run_sheets(groups: Sequence[RunGroup]) -> list[RunSheets]:
    """The contact sheets of each group that has some; of several seeds those of the first."""
    return [
        RunSheets(series, group.label, [(title, png_uri(picture)) for title, picture in group.runs[0].sheets.items()])
        for series, group in enumerate(groups)
        if group.runs[0].sheets
    ]


def png_uri(picture: bytes) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
