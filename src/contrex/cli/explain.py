"""The command `explain`, which draws explanations of photos."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from contrex import settings
from contrex.cli.counting import Progress
from contrex.cli.options import Arguments, parsed
from contrex.errors import ArgumentError
from contrex.importing import uncollected
from contrex.settings.contrast import is_contrast, read_contrast
from contrex.settings.explainer import read_explainer

if TYPE_CHECKING:
    from contrex.exploring import Explorer
    from contrex.photos import Asked, NamedClassifier


@dataclass(frozen=True)
class Beside:
    """Files beside the picture."""

    page: Path | None = None
    """Also write a page to this file (.html) on which any class is asked against any other, in a browser and without a
    server."""
    save_maps: bool = False
    """Write the raw maps too, beside the picture as .npz."""


@dataclass(frozen=True)
class Which:
    """The classes to explain."""

    target: tuple[str, ...] = ()
    """Classes to explain, by name or index. If none are given, the most probable ones of each photo."""
    top: int | None = None
    """How many of the most probable classes to explain. Without --contrast, each has its heatmap and its weighted
    contrast."""
    expected: str | None = None
    """The class that the photo is of, by name or index, where the network may say another: the picture shows why the
    predicted class, why that rather than the expected one, and the reverse."""
    threshold: float | None = None
    """With --task multilabel, without --target and --top: labels with a probability above this are explained, at least
    the most probable one. None is 0.5."""


@dataclass(frozen=True)
class Explain:
    """Draw why a photo is of one class and, with --contrast, not of another."""

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, folders of them, or wildcards such as 'cats/*.jpg'."""
    run: Path | None = None
    """The folder of a trained run, instead of --model."""
    model: settings.Model = field(default_factory=settings.Model)
    explainer: tuple[str, ...] = ("grad_cam",)
    """Explainers, a row of heatmaps for each: a name (contrex explainers lists them), FILE.py:CLASS, MODULE:CLASS or
    captum:CLASS. Options stand in brackets: "rise(num_masks=500, seed=1)"."""
    layer: str | None = None
    """The layer to explain; None is the last feature map."""
    which: Annotated[Which, tyro.conf.arg(name="")] = field(default_factory=Which)
    contrast: tuple[str, ...] = ()
    """Contrasts, a heatmap for each: none, the other classes (mean, max, weighted), those with the nearest logits
    (nearest), or one class by name or index. Options stand in brackets: "nearest(k=3, alpha=0.6)",
    "weighted(strength=0.5)"."""
    task: settings.Task | None = None
    """What the logits are: a softmax over the classes (multiclass), one logit for two classes (binary), or one for each
    label (multilabel). None is binary for a classifier with one logit, else multiclass."""
    classes: tuple[str, ...] = ()
    """The names of the classes, for open_clip's models a text for each: "a tabby" "a tiger cat". Or a file of them, one
    a line or `index<TAB>id<TAB>names`. Without any, the run's or the weights', or ImageNet's for 1000 classes."""
    side: int | None = None
    """The shorter side of the photo that the network sees, in pixels; nothing is cropped, but for
    networks that take squares only. None is what the run or the weights were made for, or 224."""
    output: Path = Path("explanation.png")
    """The file of the picture; its suffix names the format: .png, .jpg, .webp, .pdf or .svg. Of several photos each has
    a file, explanation-NAME.png, or a page of the one .pdf. Beside it is explanation.json, a record of the explanation
    that contrex verify checks."""
    beside: Annotated[Beside, tyro.conf.arg(name="")] = field(default_factory=Beside)


def explain(arguments: Arguments) -> int:
    """Draw why a photo is of the class that the classifier says, and name its most probable classes."""
    options = parsed(Explain, "explain", arguments)
    _check(options)
    with uncollected():
        from contrex import photos
        from contrex.explanation_record import Origin, save_record

    found = photos.found_photos(options.photos)
    files = _files_of(found, options.output)
    asked = photos.Asked(
        explainers=options.explainer,
        layer=options.layer,
        classes=options.which.target,
        top=options.which.top,
        contrasts=options.contrast,
        task=options.task,
        threshold=options.which.threshold,
        expected=options.which.expected,
    )
    named = photos.classifier_of(options.run, options.model, options.classes)
    photographer = photos.Photographer(named, asked, side=options.side)
    origin = Origin(named, asked, options.run, options.model, photographer.side, has_names=bool(options.classes))
    page = _Page(options, named, asked)
    progress, book, said = Progress(len(found)), [], set()
    for path, file in zip(found, files, strict=True):
        with progress.photo():
            result = photographer.explain(path)
            places = [f"{row[0].explainer} explains {row[0].place}" for row in result.rows if row[0].place is not None]
            progress.tell(*[line for line in dict.fromkeys(places) if line not in said], *result.lines())
            said.update(places)
            if file.picture.suffix.lower() == ".pdf":
                book.append(result)
            else:
                photos.save_pictures([result], file.picture)
                progress.tell(f"picture: {file.picture}")
            maps = file.maps if options.beside.save_maps else None
            save_record(result, origin, file.record, picture=file.picture, maps=maps)
            progress.tell(f"record: {file.record}")
            page.add(path)
    if book:
        photos.save_pictures(book, options.output)
        progress.tell(f"picture: {options.output}")
    progress.tell(*page.written())
    return 2 if progress.num_unreadable else 0


class _Page:
    """The page of `--page`; without it, none."""

    def __init__(self, options: Explain, named: NamedClassifier, asked: Asked) -> None:
        self._file = options.beside.page
        self._explorer: Explorer | None = None
        if options.beside.page is None:
            return
        from contrex.exploring import Explorer, Participant

        name = str(options.run.name if options.run else options.model.name)
        participant = Participant(name, named, options.run, options.model, options.classes)
        self._explorer = Explorer([participant], asked, side=options.side)

    def add(self, path: Path) -> None:
        """Explore a photo."""
        if self._explorer is not None and self._file is not None:
            self._explorer.add(path, self._file)

    def written(self) -> list[str]:
        """Write the page, if a photo could be read, and say where it is."""
        if self._explorer is None or self._file is None or not self._explorer.num_photos:
            return []
        return [f"page: {self._explorer.page().save(self._file)}"]


def _check(options: Explain) -> None:
    """Refuse, before anything is loaded, what cannot come to an end."""
    if not options.photos:
        raise ArgumentError("name one photo or more: contrex explain PHOTO ... --run RUN")
    if options.run is not None and options.model != settings.Model():
        raise ArgumentError("--run and --model.* are two classifiers: give one of them.")
    check_output(options.output, FORMATS)
    if options.beside.page is not None:
        check_output(options.beside.page, PAGES, "page")
    which = options.which
    if which.top is not None and (which.top < 1 or which.target):
        raise ArgumentError(
            f"--top {which.top} must be 1 or more, and cannot be combined with --target: give one of them."
        )
    for text in options.explainer:
        read_explainer(text)
    for text in filter(is_contrast, options.contrast):
        read_contrast(text)


FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
"""Those of `contrex.explain.page`, which loads Pillow; a test compares them."""


PAGES = (".html", ".htm")


def check_output(output: Path, formats: Sequence[str], name: str = "output") -> None:
    """Refuse a file, the option `name`, that cannot be written, or has the suffix of none of these formats.

    Raises:
        ArgumentError: the suffix is missing or unknown, the file is a folder, or it or its folder cannot be written.
    """
    if not output.suffix:
        raise ArgumentError(f"`{name}` {output} needs the suffix of a format: {', '.join(formats)}.")
    if output.suffix.lower() not in formats:
        kind = "page" if formats is PAGES else "picture"
        raise ArgumentError(f"`{name}` {output} has no {kind} format: end it in one of {', '.join(formats)}.")
    if output.is_dir():
        raise ArgumentError(f"`{name}` {output} is a folder: name a file in it, {output / f'explanation{formats[0]}'}.")
    folder = output.absolute().parent
    while not folder.exists() and not folder.is_symlink():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or (output.exists() and not os.access(output, os.W_OK)):
        raise ArgumentError(f"`{name}` {output} cannot be written: {folder} is no folder that you may write to.")


@dataclass(frozen=True)
class _Files:
    """What is written of one photo: its picture, its record and its maps."""

    picture: Path
    record: Path
    maps: Path


def _files_of(photos: Sequence[Path], output: Path) -> list[_Files]:
    """The files of each photo: of several, its name is in theirs, with a number where names are alike.

    Raises:
        ArgumentError: a picture would replace a photo.
    """
    files, stems, seen = [], [path.stem[:LONGEST_STEM] for path in photos], set[str]()
    taken = set(stems)
    for stem in stems:
        base, name = output, stem
        if stem in seen:  # another photo may have the name with a number
            name = next(new for number in itertools.count(2) if (new := f"{stem}-{number}") not in taken)
        seen.add(stem)
        taken.add(name)
        if len(photos) > 1:
            base = output.with_stem(f"{output.stem}-{name}")
        picture = output if output.suffix.lower() == ".pdf" else base
        files.append(_Files(picture, base.with_suffix(".json"), base.with_suffix(".npz")))
    lost = {file.picture.resolve() for file in files} & {path.resolve() for path in photos}
    if lost:
        raise ArgumentError(f"`output` {min(lost)} is one of the photos: name another file.")
    return files


LONGEST_STEM = 40
"""Letters of a photo's name in the name of its picture: a file system takes 255 bytes."""
