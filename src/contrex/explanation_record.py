"""Records of the explanations of photos: all that is needed to make them again, and to see whether they still hold.

A record is JSON beside the picture. It names the photo, the weights and the maps' file by their place seen from the
record, and by SHA-256, so a folder with all of them can be moved. docs/records.md has the fields.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from contrex.explain import Explanation
from contrex.explain.words import NUM_TOP, class_name, in_words
from contrex.models.fingerprint import weights_sha256
from contrex.ops import scores
from contrex.photos import Asked, NamedClassifier, PhotoExplanation
from contrex.records import to_plain, write_atomically, write_json
from contrex.records.origin import command_line, versions
from contrex.settings import Model

KIND, VERSION = "PhotoExplanation", 1
"""What the file is; the version grows when a key changes its meaning."""

CELLS = 16
"""Rows and columns of a map that the record itself keeps; larger maps are averaged to them."""

Plain = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Origin:
    """How the explanations of a command were made: the classifier, what was asked, and the hashes of the weights, which
    are computed once for all photos."""

    named: NamedClassifier
    asked: Asked
    run: Path | None
    model: Model
    side: int
    has_names: bool = False
    """Whether the names of the classes were given by the caller; a record keeps them then."""
    weights: str = field(init=False)
    file: str | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", weights_sha256(self.named.classifier.network))
        object.__setattr__(self, "file", None if self.model.weights is None else file_sha256(self.model.weights))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` gives it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_record(
    result: PhotoExplanation, origin: Origin, path: Path, *, picture: Path, maps: Path | None = None
) -> None:
    """Write the record of a photo's explanations to `path`, and their maps to `maps`."""
    kept = None
    if maps is not None:
        save_maps(result, maps)
        kept = {"file": _seen_from(path, maps), "sha256": file_sha256(maps)}
    write_json(path, {**record_of(result, origin, path), "picture": _seen_from(path, picture), "maps": kept})


def save_maps(result: PhotoExplanation, path: Path) -> None:
    """Write the raw maps of a photo as float arrays, `map_I_J` of explainer I and question J, with the `logits` [1,K]
    and, as texts, the `questions`."""
    arrays = {f"map_{i}_{j}": array_of(why) for i, row in enumerate(result.rows) for j, why in enumerate(row)}
    told = [
        f"map_{i}_{j}: {why.explainer}: {in_words(why)[0].question}"
        for i, row in enumerate(result.rows)
        for j, why in enumerate(row)
    ]
    file = io.BytesIO()
    logits = result.rows[0][0].logits.numpy()
    np.savez_compressed(file, allow_pickle=False, logits=logits, questions=np.array(told), **arrays)
    write_atomically(path, file.getvalue())


def array_of(why: Explanation) -> NDArray[np.floating]:
    array: NDArray[np.floating] = why.heatmap[0].numpy()
    return array


def _seen_from(record: Path, file: Path) -> str:
    """The place of a file, seen from the folder of the record."""
    try:
        return Path(os.path.relpath(file, record.parent)).as_posix()
    except ValueError:  # another drive of Windows
        return str(file.absolute())


def record_of(result: PhotoExplanation, origin: Origin, record: Path) -> Plain:
    """What the record of a photo's explanations says, for the file `record`, before a picture and maps are written."""
    first, (width, height) = result.rows[0][0], result.size
    seen = {"height": result.image.shape[2], "width": result.image.shape[3]}
    photo = {"file": _seen_from(record, result.path), "sha256": result.sha256, "height": height, "width": width}
    return {
        "kind": KIND,
        "version": VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "versions": versions("timm", "pillow"),
        "photo": {**photo, "seen_as": {"short_side": origin.side, **seen}},
        "classifier": _classifier(origin, first, record),
        "task": scores.task_of(first.logits, first.task),
        "classes": _classes(first, _most_probable(first)),
        "expected": _expected(result),
        "layer_asked": origin.asked.layer,
        "explanations": [
            _row(text, row, index) for index, (text, row) in enumerate(zip(result.explainers, result.rows, strict=True))
        ],
        "picture": None,
        "maps": None,
    }


def _classifier(origin: Origin, why: Explanation, record: Path) -> Plain:
    weights, classifier = origin.model.weights, origin.named.classifier
    return {
        "run": None if origin.run is None else _seen_from(record, origin.run),
        "model": None if origin.run is not None else to_plain(replace(origin.model, weights=None)),
        "names": list(origin.named.names) if origin.has_names else None,
        "mean": classifier.mean,
        "std": classifier.std,
        "num_classes": scores.class_logits(why.logits, why.task).shape[1],
        "weights": {
            "file": None if weights is None else _seen_from(record, weights),
            "file_sha256": origin.file,
            "sha256": origin.weights,
        },
    }


def _most_probable(why: Explanation) -> Sequence[int]:
    order: list[int] = probabilities_of(why).sort(descending=True, stable=True).indices[:NUM_TOP].tolist()
    return order


def probabilities_of(why: Explanation) -> torch.Tensor:
    return scores.probabilities(why.logits, why.task)[0]


def _classes(why: Explanation, indices: Sequence[int]) -> list[Plain]:
    probabilities = probabilities_of(why)
    return [
        {"index": index, "name": class_name(why.names, index), "probability": float(probabilities[index])}
        for index in indices
    ]


def _expected(result: PhotoExplanation) -> Plain | None:
    """The class that was expected, and whether it is the prediction; None where none was named."""
    if result.expected is None:
        return None
    return {**_classes(result.rows[0][0], [result.expected])[0], "is_predicted": result.is_as_expected}


def _row(text: str, row: Sequence[Explanation], index: int) -> Plain:
    """One explainer and what it was asked."""
    first = row[0]
    return {
        "asked": text,
        "explainer": first.explainer,
        "options": dict(first.options),
        "layer": first.layer,
        "grid": first.grid,
        "score": first.score,
        "unit": first.unit,
        "questions": [_question(why, f"map_{index}_{place}") for place, why in enumerate(row)],
    }


def _question(why: Explanation, name: str) -> Plain:
    said, foils = in_words(why)[0], why.foils
    contrast = why.contrast if why.contrast is None or isinstance(why.contrast, str) else "foils"
    return {
        "question": said.question,
        "note": said.note,
        "target": _classes(why, why.target.tolist())[0],
        "contrast": contrast,
        "foils": [] if foils is None else _classes(why, foils[0].tolist()),
        "value": score_of(why),
        "map": {
            "name": name,
            "shape": list(why.heatmap.shape[1:]),
            "largest": float(why.heatmap.abs().max()),
            "cells": cells_of(array_of(why)).tolist(),
        },
    }


def score_of(why: Explanation) -> float:
    """The number that is explained."""
    return float(scores.score(why.logits, why.target, why.contrast, why.task))


def cells_of(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """A map [h,w] with at most 16 x 16 cells: itself, or the means of parts."""
    height, width = (min(side, CELLS) for side in values.shape)
    pooled = F.adaptive_avg_pool2d(torch.as_tensor(values)[None], (height, width))[0]
    cells: NDArray[np.floating] = values if values.shape == (height, width) else pooled.numpy()
    return cells
