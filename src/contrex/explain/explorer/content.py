"""What the explorer's page holds, as plain values: pictures, classes, logits and maps.

Numbers are little-endian in base64: logits float32, maps 16 bit whole numbers with a factor for each class, so that a
cell is off by 1/65534 of the largest one of its map at most. Half precision, as large, is off by 1/4096 of each cell,
which a difference of two strong maps would show.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex._version import __version__
from contrex.explain.explorer.class_maps import ClassMaps
from contrex.explain.picture import Photo
from contrex.explain.words import method_in_words
from contrex.ops.colour import DARKEST, DIVERGING, OVER_PICTURE
from contrex.ops.explorer_page import VERSION
from contrex.ops.scores import contrast_scale, task_of

LONGEST, QUALITY = 512, 82
"""Pixels of the longer side of a picture on the page, and the quality of its JPEG."""

Plain = dict[str, Any]


@dataclass(frozen=True)
class View:
    """A part of a picture as shares of its sides, stretched to its size, mirrored or not."""

    name: str
    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    is_flipped: bool = False

    def of(self, picture: Image.Image, how: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
        """What the view shows of a picture, in the picture's size."""
        if self.width < 1 or self.height < 1:
            left, top = self.left * picture.width, self.top * picture.height
            box = (left, top, left + self.width * picture.width, top + self.height * picture.height)
            picture = picture.resize(picture.size, how, box=box)
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.is_flipped else picture


WHOLE = View("the whole picture")
VIEWS = (
    WHOLE,
    View("flipped", is_flipped=True),
    View("zoomed in", 0.15, 0.15, 0.7, 0.7),
    View("upper left part", 0.0, 0.0, 0.8, 0.8),
    View("lower right part", 0.2, 0.2, 0.8, 0.8),
)
"""A picture is shown whole and in these changes, each with maps of its own: a consistent network's move with it."""


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier on the page: its name there, and how it is asked again outside of the page.

    `python` and `command` are texts in which the page puts `{photo}`, `{explainer}`, `{target}` and `{contrast}`; where
    one is empty, the page does not offer it.
    """

    name: str
    python: str = ""
    command: str = ""


@dataclass(frozen=True, eq=False)
class Explored:
    """A picture, and for each of its views and each model (and then each method) the maps of classes.

    `records` are the explanation records of each model without questions, and may be none.
    """

    photo: Photo
    views: Sequence[View]
    answers: Sequence[Sequence[Sequence[ClassMaps]]]
    path: str = ""
    records: Sequence[Plain] = ()

    def plain(self) -> Plain:
        """The values of the picture that the page's script reads when it shows it."""
        height, width = self.photo.pixels.shape[:2]
        return {
            "path": self.path or self.photo.name or "PICTURE",
            "width": width,
            "height": height,
            "image": jpeg(Image.fromarray(self.photo.pixels)),
            "records": list(self.records),
            "answers": [[plain_answer(methods) for methods in models] for models in self.answers],
        }


@dataclass(frozen=True)
class Start:
    """The question with which the page opens: a class (None is the most probable one of each picture), and what it is
    explained against: none, "mean", "max", "weighted", or classes; and the share of it, up to 1."""

    target: int | None = None
    contrast: str | Sequence[int] | None = None
    share: float = 1.0

    def plain(self) -> Plain:
        """The question as the page's script reads it."""
        part = {} if self.share == 1 else {"share": self.share}
        return {"target": self.target, "contrast": self.contrast, **part}


@dataclass(frozen=True, eq=False)
class Content:
    """All that a page shows. The models have the same classes, in one order, and the pictures the same views; `methods`
    are the texts that name the explainers."""

    models: Sequence[Model]
    pictures: Sequence[Explored]
    methods: Sequence[str]
    title: str = "Why?"
    start: Start = field(default_factory=Start)

    def plain(self) -> Plain:
        """The values that the page's script reads first: all but those of the pictures. Without a picture it is their
        title."""
        if not self.pictures:
            return {"title": self.title, "photos": []}
        first = self.pictures[0].answers[0][0][0]
        about, num = first.about, len(first.logits)
        return {
            "version": VERSION,
            "contrex": __version__,
            "title": self.title,
            **plain_task(first),
            "names": list(about.names) or [f"class {index}" for index in range(num)],
            "models": [vars(model) for model in self.models],
            "methods": list(self.methods),
            "colours": {"stops": DIVERGING, "share": OVER_PICTURE, "darkest": DARKEST},
            "start": self.start.plain(),
            "views": [vars(view) for view in self.pictures[0].views],
            "photos": [one.photo.name or "picture" for one in self.pictures],
        }


def plain_task(maps: ClassMaps) -> Plain:
    """What the logits are, and the factor of a contrast between them."""
    task = task_of(maps.about.logits, maps.about.task)
    return {"task": task, "scale": contrast_scale(task, maps.about.score)}


def plain_answer(methods: Sequence[ClassMaps]) -> Plain:
    """What one model says of one view: its logits, and a table of maps for each method."""
    return {"logits": _base64(methods[0].logits.astype("<f4")), "tables": [_table(one) for one in methods]}


def _table(one: ClassMaps) -> Plain:
    about = one.about
    values, factors = _whole_numbers(np.concatenate([one.maps, one.rest]))
    return {
        "method": method_in_words(about),
        "unit": about.unit,
        "shape": one.maps.shape[1:],
        "size": one.size,
        "classes": one.classes,
        "hasRest": len(one.rest) > 0,
        "values": _base64(values),
        "factors": _base64(factors),
        "isLinear": one.is_linear,
        "isClassSpecific": one.is_class_specific,
        "factor": one.factor,
        "adds": one.adds,
    }


def _whole_numbers(maps: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Maps [M,h,w] as whole numbers up to 32767, and the factor of each map [M]."""
    factors = np.abs(maps).max((1, 2)).astype(np.float64) / 32767
    whole = np.rint(maps / np.where(factors > 0, factors, 1)[:, None, None])
    return whole.astype("<i2"), factors.astype("<f4")


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def jpeg(picture: Image.Image) -> str:
    """A picture as the address of an image."""
    picture, file = picture.copy(), io.BytesIO()
    picture.thumbnail((LONGEST, LONGEST))
    picture.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
