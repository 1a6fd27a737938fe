"""The report about any number of runs, as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from contrex.errors import ArgumentError
from contrex.ops.explorer_page import allowed, joined, module_text, script_text
from contrex.records import RunRecord, read_run, write_atomically
from contrex.report import cells, colour, curves, plot, scatters
from contrex.report.conclusion import conclusions
from contrex.report.configuration import as_json, differences
from contrex.report.contact_sheets import run_sheets
from contrex.report.families import families, singles
from contrex.report.gallery import gallery_page
from contrex.report.groups import RunGroup, grouped
from contrex.report.numbers import number
from contrex.report.profiles import profile_figures
from contrex.report.strips import strips
from contrex.report.tables import comparison
from contrex.report.words import circumstances, compared, meaning, period, sentences_on_methods

MODULES = ("tables", "asking", "dialog", "cards", "page")
"""The files of the script, each behind those that it imports."""


def write_report(folders: Sequence[Path], output: Path, *, title: str | None = None, names: Sequence[str] = ()) -> Path:
    """Read the record in each folder, and write the report about them to `output`. The first is the baseline.

    `names` are what the report calls its rows, in their order: a run each, or a method over its seeds.

    Raises:
        ArgumentError: there is no folder, or `names` are not one for each row.
        RecordError: a folder holds no readable record.
    """
    runs = [read_run(Path(folder)) for folder in folders]
    title = title or " · ".join(group.label for group in grouped(runs, names))
    write_atomically(output, render_report(runs, title=title, names=names).encode(errors="replace"))
    return output


def render_report(runs: Sequence[RunRecord], *, title: str, names: Sequence[str] = ()) -> str:
    """The report about `runs` as HTML that needs no network and no other file. The first run is the baseline.

    It concludes first, in words, from the numbers. `names` are as in `write_report`. All texts from records are
    escaped, and the page's content security policy allows its own script only.

    Raises:
        ArgumentError: `runs` is empty, or `names` are not one for each row.
    """
    if not runs:
        raise ArgumentError(
            "`runs` must hold at least one run, got none. Pass the folders that `contrex evaluate` wrote."
        )
    return render_page("report.html.j2", title=title, **_content(grouped(runs, names)))


def render_page(template: str, **content: Any) -> str:
    """The page that a template makes of `content`, with the style of all pages. All texts are escaped."""
    return _environment().get_template(template).render(**_page(), **content)


@cache  # compiling the templates takes longer than filling them in
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("contrex.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.globals |= {"cells": cells, "strips": strips, "number": number, "as_json": as_json}
    environment.globals["meaning"] = meaning
    return environment


def breakable(text: str) -> Markup:
    """The escaped text with marks where a narrow column may break it: after - _ / and dots.

    >>> breakable("a_b/<i>")
    Markup('a_<wbr>b/<wbr>&lt;i&gt;')
    """
    return Markup("<wbr>").join(cells.pieces(text))


def _page() -> dict[str, Any]:
    """The content of every page: style, script and its hash, colours, markers."""
    return {
        "style": Markup(_colours() + _text("templates", "report.css")),  # our own files, no text from a record
        "script": Markup(_script()),
        "sources": Markup(allowed(_script())),
        "sources_of_explorer": Markup(allowed(script_text())),
        "colour": colour,
        "plot": plot,
        "scatter": scatters,
    }


def _content(groups: Sequence[RunGroup]) -> dict[str, Any]:
    """The content that comes from the runs."""
    table = comparison(groups)
    runs = [run for group in groups for run in group.runs]
    return {
        "groups": groups,
        "seeds_averaged": any(len(group.runs) > 1 for group in groups),
        "has_episodes": any(group.draws for group in groups),
        "runs": runs,
        "table": table,
        "singles": singles(table),
        "families": families(table),
        "compared": compared(groups),
        "circumstances": circumstances(groups),
        "methods": sentences_on_methods(groups),
        "conclusions": conclusions(table),
        "period": period(groups),
        "commands": list(dict.fromkeys(run.record.command for run in runs if run.record.command)),
        "panels": curves.curve_panels(groups),
        "stability": curves.stability(groups),
        "profiles": profile_figures(groups),
        "scatter_figures": scatters.scatter_figures(groups),
        "contact_sheets": run_sheets(groups),
        "gallery": gallery_page(groups),
        "differences": differences(groups),
        "skipped": {
            _told(group, run): images for group in groups for run in group.runs if (images := run.record.skipped_images)
        },
    }


def _told(group: RunGroup, run: RunRecord) -> str:
    """A run in words: its method, with the seed where there are several."""
    return f"{group.label} (seed {run.record.seed})" if len(group.runs) > 1 else group.label


def _colours() -> str:
    return resources.files("contrex.ops").joinpath("colours.css").read_text(encoding="utf-8")


def _text(*place: str) -> str:
    return resources.files("contrex.report").joinpath(*place).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """The modules of the page's script, with those of the explorer that they import."""
    return joined([module_text("elements"), *(_text("script", f"{name}.js") for name in MODULES)])
