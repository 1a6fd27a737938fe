"""The photos that a live page has, and what the classifiers say of them when they are changed."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from contrex.data.files.images import decoded_image
from contrex.errors import ArgumentError, printable
from contrex.explain.explorer.answers import Asked
from contrex.explain.explorer.class_maps import ClassMaps
from contrex.explain.explorer.content import Explored, Model, jpeg, plain_answer
from contrex.explain.explorer.page import ExplorerPage
from contrex.exploring import Explorer
from contrex.photos import Opened, opened
from contrex.serving.change import Change

MOST_PHOTOS = 20
"""Photos that are kept, the last ones: each is a few megabytes, what is seen of it and its maps."""

MOST_BYTES = 32 * 2**20
"""Of a photo's file."""

LONGEST_NAME = 120
"""Letters of a photo's name."""

Plain = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Kept:
    """A photo with its maps, and who is asked about it again when it is changed."""

    explored: Explored
    asked: Sequence[Asked]


class Studio:
    """The classifiers of an explorer, and the photos that came last, by their numbers. Its methods may be called from
    several threads; networks are run by one at a time."""

    def __init__(self, explorer: Explorer, *, most: int = MOST_PHOTOS) -> None:
        self._explorer, self._most = explorer, most
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._num_added = 0
        self._lock = threading.Lock()  # a network in use has hooks in it, which another pass would run into

    def open(self, path: Path) -> None:
        """Take in a photo of this machine; errors as in `Explorer.add`."""
        self._keep(opened(path))

    def add(self, name: str, content: bytes) -> Plain:
        """Take in a photo that someone sent, and say what the page needs of it.

        Raises:
            ArgumentError: as in `Explorer.add`.
            ImageError: it is no picture, or one that would not be read from a file either.
        """
        name = _plain_name(name)
        with self._lock:  # also around reading: a large photo takes a gigabyte while it is decoded
            image = decoded_image(content, name)
        number, kept = self._keep(Opened(Path(name), image, hashlib.sha256(content).hexdigest()))
        return {"id": number, "name": name, "photo": kept.explored.plain()}

    def change(self, number: str, change: Change, classes: Sequence[int] = ()) -> Plain:
        """What the classifiers say of a photo as it was changed, and the changed picture; `classes` have a map in any
        case.

        Raises:
            ArgumentError: the photo is not kept any more, or there is no such class.
        """
        kept = self._kept.get(number)
        if kept is None:
            raise ArgumentError(f"`photo` {number!r:.40} is not kept any more, of {self._most}: drop it again.")
        num = len(kept.explored.answers[0][0][0].logits)
        if wrong := [one for one in classes if not 0 <= one < num]:
            raise ArgumentError(f"`classes` {wrong[0]} is none of the {num} classes, 0 to {num - 1}.")
        with self._lock:
            (models,) = self._explorer.answered(kept.asked, [change], classes)
            picture = change.of(Image.fromarray(kept.explored.photo.pixels))
        return {"image": jpeg(picture), "answers": [plain_answer(_without_paths(methods)) for methods in models]}

    def page(self) -> ExplorerPage:
        """The page with the photos that are kept."""
        with self._lock:
            kept = dict(self._kept)
        content = self._explorer.content(self._models(), [one.explored for one in kept.values()])
        live = {"ids": list(kept), "mostBytes": MOST_BYTES}
        return ExplorerPage(replace(content, methods=[_short(text) for text in content.methods]), live=live)

    def _keep(self, photo: Opened) -> tuple[str, Kept]:
        with self._lock:
            explored, asked = self._explorer.explored(photo)
            self._num_added += 1
            number = str(self._num_added)
            found = [[_without_paths(methods) for methods in models] for models in explored.answers]
            kept = Kept(replace(explored, path=photo.path.name, answers=found), asked)
            self._kept[number] = kept
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return number, kept

    def _models(self) -> list[Model]:
        """The classifiers by name, without the Python and the command that ask them: these have paths in them."""
        names = [_short(one.name) for one in self._explorer.participants]
        return [
            Model(f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name)
            for place, name in enumerate(names)
        ]


def _plain_name(name: str) -> str:
    """The name of a file, without the folders that some browsers send."""
    return printable(re.split(r"[/\\]", name)[-1].replace("\n", " ").strip())[:LONGEST_NAME] or "photo"


def _short(text: str) -> str:
    """A text in which each path is its last part: of `nets/mine.py:Net`, and of `/runs/a`.

    >>> _short("lib/cams.py:Mine(layer='layer4')"), _short("/runs/a"), _short("hf:microsoft/resnet-50")
    ("cams.py:Mine(layer='layer4')", 'a', 'hf:microsoft/resnet-50')
    """
    head, mark, tail = text.partition(".py:")
    if mark:
        return f"{PurePosixPath(head.replace(chr(92), '/')).name}{mark}{tail}"
    return text if ":" in text[2:] else re.split(r"[/\\]", text)[-1]


def _without_paths(methods: Sequence[ClassMaps]) -> list[ClassMaps]:
    """What a model says, without the places of files on this machine, which an explainer of a file has in its name."""
    return [replace(one, about=replace(one.about, explainer=_short(one.about.explainer))) for one in methods]
