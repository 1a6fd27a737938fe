"""Explanations as files: the picture, the arrays, or all that there is to know as JSON."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from contrex._version import __version__
from contrex.errors import ArgumentError
from contrex.explain import words
from contrex.explain.page import FORMATS, written
from contrex.explain.picture import SHARP, Photo, sheet
from contrex.ops import scores
from contrex.records.plain import to_plain, write_atomically, write_json

if TYPE_CHECKING:
    from contrex.explain.explanation import Explained, Explanation

VERSION = 1
"""Of what a JSON file holds; it grows when a key changes its meaning."""


def save(why: Explained, path: Path) -> None:
    """Write an explanation in the format that the suffix of `path` names; see `Explanation.save`."""
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        write_atomically(path, written([sheet(why.columns(), shown=None)], suffix, SHARP))
    elif suffix == ".npz":
        file = io.BytesIO()
        np.savez_compressed(file, **_arrays(why), about=np.array(json.dumps(to_plain(about(why)))))
        write_atomically(path, file.getvalue())
    elif suffix == ".json":
        write_json(path, {**about(why), **{name: array.tolist() for name, array in _arrays(why).items()}})
    else:
        raise ArgumentError(f"`path` {str(path)!r} must end in .json, .npz, or a picture's {', '.join(FORMATS)}.")


def about(why: Explained) -> dict[str, Any]:
    """All that an explanation knows but for its arrays, as plain values."""
    columns = why.columns()
    told = [words.in_words(column) for column in columns]
    return {
        "kind": type(why).__name__,
        "version": VERSION,
        "versions": {"contrex": __version__, "torch": str(torch.__version__)},
        "explainer": why.explainer,
        "options": dict(why.options),
        "layer": why.layer,
        "grid": why.grid,
        "score": why.score,
        "unit": why.unit,
        "task": scores.task_of(why.logits, why.task),
        "contrast": why.contrast if why.contrast is None or isinstance(why.contrast, str) else "foils",
        "images": [_photo(photo) for photo in why.images],
        **_expected(why),
        "classes": _top(why),
        "questions": [
            [_question(column, said[index].question, index) for column, said in zip(columns, told, strict=True)]
            for index in range(len(why))
        ],
    }


def _expected(why: object) -> dict[str, Any]:
    """The class that was expected of the picture, where one was named."""
    from contrex.explain.expected import ExpectedExplanation

    if not isinstance(why, ExpectedExplanation):
        return {}
    probability = float(scores.probabilities(why.logits.detach(), why.task)[0, why.expected])
    return {"expected": {**_class(why, why.expected, probability), "is_predicted": why.is_as_expected}}


def _photo(photo: Photo) -> dict[str, Any]:
    digest = photo.sha256 or hashlib.sha256(photo.pixels.tobytes()).hexdigest()
    height, width = photo.pixels.shape[:2]
    of = "file" if photo.is_file else "pixels"
    return {"name": photo.name, "height": height, "width": width, "sha256": digest, "sha256_of": of}


def _top(why: Explained) -> list[list[dict[str, Any]]]:
    """The most probable classes of each image."""
    if why.task == scores.ALONE:
        return [[] for _ in why]
    probabilities = scores.probabilities(why.logits.detach(), why.task)
    values, indices = probabilities.topk(min(words.NUM_TOP, probabilities.shape[1]))
    return [
        [_class(why, index, value) for index, value in zip(of_image, known, strict=True)]
        for of_image, known in zip(indices.tolist(), values.tolist(), strict=True)
    ]


def _class(why: Explained, index: int, probability: float) -> dict[str, Any]:
    return {"index": index, "name": words.class_name(why.names, index), "probability": probability}


def _question(why: Explanation, asked: str, index: int) -> dict[str, Any]:
    """What the map of one image answers: its target and foils, or its scores."""
    one = why[index : index + 1]
    if one.task == scores.ALONE:
        values = zip(one.names, one.logits[0].tolist(), strict=True)
        return {"question": asked, "scores": [{"name": name, "value": value} for name, value in values]}
    probabilities = scores.probabilities(one.logits.detach(), one.task)[0]
    target, foils = int(one.target), one.foils
    against = [] if foils is None else foils[0].tolist()
    return {
        "question": asked,
        "target": _class(why, target, float(probabilities[target])),
        "foils": [_class(why, foil, float(probabilities[foil])) for foil in against],
    }


def _arrays(why: Explained) -> dict[str, Any]:
    return {name: getattr(why, name).detach().cpu().numpy() for name in ("heatmap", "logits", "target")}
