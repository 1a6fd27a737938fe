"""The explorer within a report: its page, once, and what it needs of each picture, from the records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from contrex._version import __version__
from contrex.ops.colour import DARKEST, DIVERGING, OVER_PICTURE
from contrex.ops.explorer_page import VERSION, as_data, explorer_html
from contrex.records import RunRecord

Plain = dict[str, Any]
WHOLE = {"name": "the whole picture", "left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0, "is_flipped": False}


def explorer_data(runs: Sequence[RunRecord], labels: Sequence[str], asked: Sequence[Plain]) -> str:
    """The explorer's page with marks for what it shows, and all that its pictures share, as JSON; empty if no picture
    can be asked. The script of the report puts a picture in."""
    if not asked:
        return ""
    methods = {str(run.record.configuration.get("evaluation", {}).get("explainer", "heatmap")) for run in runs}
    content = {
        "version": VERSION,
        "contrex": __version__,
        "title": "Why?",
        "task": asked[0]["task"],
        "scale": asked[0]["scale"],
        "names": list(runs[0].record.classes),
        "models": [{"name": label, "python": "", "command": ""} for label in labels],
        "methods": [" and ".join(sorted(methods))],
        "colours": {"stops": DIVERGING, "share": OVER_PICTURE, "darkest": DARKEST},
        "views": [WHOLE],
    }
    return as_data({"page": explorer_html(title="Why?", content="{{content}}", first="{{first}}"), "content": content})


def asked_of(runs: Sequence[RunRecord], path: str, size: tuple[int, int]) -> Plain | None:
    """What the explorer needs of the picture `path`, (height, width) large: the answers of all runs, side by side.

    None where one of them recorded none, or where they cannot stand side by side: other classes or another task.
    """
    found = [_answer(run, path) for run in runs]
    answers = [one for one in found if one is not None]
    if len(answers) < len(runs) or len({(one["task"], one["scale"]) for one in answers}) > 1:
        return None
    if len({tuple(run.record.classes) for run in runs}) > 1:
        return None
    return {
        "task": answers[0]["task"],
        "scale": answers[0]["scale"],
        "picture": {
            "path": path,
            "height": size[0],
            "width": size[1],
            "records": [],
            "answers": [[one["answer"] for one in answers]],
        },
    }


def _answer(run: RunRecord, path: str) -> Plain | None:
    gallery = run.gallery
    text = None if gallery is None else gallery.answers.get(list(gallery.paths).index(path))
    answer: Plain | None = None if text is None else json.loads(text)
    return answer if answer is not None and answer.get("version") == VERSION else None
