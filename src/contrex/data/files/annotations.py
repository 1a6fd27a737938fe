"""The XML files of Pascal VOC, which ImageNet's boxes come in too: one for each image, with an element per object.

Coordinates name pixels, and the maxima are the last pixels inside. VOC counts pixels from 1, as MATLAB does; ImageNet
from 0. Boxes read here are edges, as everywhere in contrex: the first pixel alone is 0, 0, 1, 1.

A document type declaration is refused, and with it everything that can make a small XML file large or read other files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from xml.etree import ElementTree

from contrex.data.files.tables import EDGES
from contrex.errors import DataError

Box = tuple[float, float, float, float]
"""Edges `xmin, ymin, xmax, ymax` in stored pixels."""


@dataclass(frozen=True)
class Object:
    """One object of an image: the name of its class, its box, and whether VOC calls it difficult."""

    name: str
    box: Box
    difficult: bool = False


def read_objects(file: Path, *, first_pixel: int) -> list[Object]:
    """Read the objects in an XML file whose coordinates count pixels from `first_pixel`.

    Raises `DataError` naming the file for one that is missing, no XML, or has a box without four numbers or area.
    """
    root = _root(file)
    return [_object(file, number, element, first_pixel) for number, element in enumerate(root.iter("object"), start=1)]


def edges(numbers: Sequence[float], *, first_pixel: int) -> Box:
    """The edges of a box given by the first and the last pixels inside it.

    Raises `ValueError` for a box without area, or for numbers that are not finite.

    >>> edges((1, 1, 500, 375), first_pixel=1)  # the whole image in VOC
    (0, 0, 500, 375)
    """
    xmin, ymin, xmax, ymax = numbers
    if not all(map(isfinite, numbers)) or xmax < xmin or ymax < ymin:
        raise ValueError(f"the box {', '.join(f'{number:g}' for number in numbers)} is empty")
    return xmin - first_pixel, ymin - first_pixel, xmax + 1 - first_pixel, ymax + 1 - first_pixel


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        # Entities declared there can be made to fill the memory.
        raise ValueError("it has a document type declaration, which annotations do not need")


def _root(file: Path) -> ElementTree.Element:
    try:
        with file.open("rb") as stream:
            return ElementTree.parse(stream, ElementTree.XMLParser(target=_Builder())).getroot()
    except FileNotFoundError:
        raise DataError(f"there is no annotation '{file}'. Unpack the annotations again.") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"'{file}' is not a readable annotation: {error}") from None


def _object(file: Path, number: int, element: ElementTree.Element, first_pixel: int) -> Object:
    try:
        name = (element.findtext("name") or "").strip()
        if not name:
            raise ValueError("it has no name")
        box = element.find("bndbox")
        if box is None:
            raise ValueError("it has no bndbox")
        numbers = [float(box.findtext(edge) or "nan") for edge in EDGES]
        difficult = (element.findtext("difficult") or "0").strip() == "1"
        return Object(name, edges(numbers, first_pixel=first_pixel), difficult)
    except ValueError as error:
        raise DataError(f"'{file}', object {number}: {error}") from None
