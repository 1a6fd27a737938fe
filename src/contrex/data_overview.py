"""Looking at a data set before training on it: what is in it, what is wrong with it, and a sheet of its images.

A wrong path, a half-unpacked archive, boxes in the wrong pixels, or classes that one split lacks cost hours if training
is the first to notice. Names from disk are printed with their control characters escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from contrex.data import ImageSet, Sample, image_set
from contrex.errors import ContrexError, DataError
from contrex.settings import Data

SPLITS = ("train", "val", "test")
"""The splits that are looked at by default."""

NUM_NAMES = 8
"""How many class names or faults are listed; the others are counted."""

SIDE, MARGIN, LINE = 192, 8, 16
"""In pixels: the side of a picture in the sheet, the space between two, and the height of a line of text."""

COLUMNS = 6
FONT = ImageFont.load_default(LINE - 4)
BOX, INK, PAPER, EMPTY = "#ff6a00", "#222222", "#ffffff", "#dddddd"


@dataclass(frozen=True, eq=False)
class SplitOverview:
    """One split. `sizes` (width, height), `num_boxes` and `num_masks` are of the `checked` images only."""

    split: str
    images: ImageSet
    labels: NDArray[np.int64]
    checked: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    num_boxes: Sequence[int]
    num_masks: int
    problems: Sequence[str]

    def lines(self) -> list[str]:
        """What is in the split, a fact on each line, without the problems."""
        of_these = f" of {len(self.images)}" if len(self.checked) < len(self.images) else ""
        lines = [
            f"{len(self.images)} images, {self._of_classes()}",
            f"looked at {len(self.checked)}{of_these}: {_extent(self.sizes)}",
            f"boxes: {_boxes(self.num_boxes)}; masks: {self._masks()}",
        ]
        return [*lines, *self._left_out()]

    def _of_classes(self) -> str:
        classes, known = self.images.classes, self.labels[self.labels >= 0]
        if not len(known):
            return "none with a label"
        counts = np.bincount(known, minlength=len(classes))
        present = counts[counts > 0]
        each = f"{present.min()} to {present.max()}" if present.min() < present.max() else f"{present.min()}"
        return f"{each} of each class, {len(present)} of {len(classes)} classes: {_classes(classes)}"

    def _masks(self) -> str:
        return f"on {self.num_masks} of {len(self.sizes)} images" if self.num_masks else "none"

    def _left_out(self) -> list[str]:
        """A line on the boxes that the reader leaves out; none if there are none."""
        counts = self.images.left_out(self.checked)
        return [f"boxes left out: {', '.join(f'{number} {why}' for why, number in counts.items())}"] if counts else []


@dataclass(frozen=True)
class Overview:
    """A data set: the splits that were read, and why others were not."""

    data: Data
    splits: Sequence[SplitOverview]
    not_read: Sequence[str] = ()
    disagreements: Sequence[str] = field(default=())

    @property
    def problems(self) -> list[str]:
        """What is wrong with the data set, a sentence for each problem."""
        own = [f"{split.split}: {problem}" for split in self.splits for problem in split.problems]
        return [*own, *self.disagreements]

    def lines(self) -> list[str]:
        """The whole overview as text, without control characters."""
        lines = [f"{type(self.data).__name__} {self.data.location or '(built in)'}"]
        for split in self.splits:
            lines += [
                f"  {head:6} {line}" for head, line in zip((split.split, "", "", ""), split.lines(), strict=False)
            ]
        lines += [f"  {reason}" for reason in self.not_read]
        lines += [f"PROBLEM {problem}" for problem in self.problems]
        return [printable(line) for line in lines]

    def save_sheets(self, output: Path | None, *, num: int) -> list[Path]:
        """Draw a sheet of at most `num` images for each split. With several splits, the files have the split in the
        name.

        Raises:
            DataError: the suffix of `output` is not that of a picture format.
        """
        name = "" if self.data.location is None else self.data.location.name
        name = name or type(self.data).__name__.lower()
        base, saved = output or Path(f"data-{name}.png"), []
        for split in self.splits:
            several = output is None or len(self.splits) > 1
            file = base.with_name(f"{base.stem}-{split.split}{base.suffix}") if several else base
            try:
                contact_sheet(split, num=num).save(file)
            except ValueError as error:
                raise DataError(f"`output` '{file}' needs the suffix of a picture, such as .png: {error}") from None
            saved.append(file)
        return saved


def overview(data: Data, splits: Sequence[str] = (), *, check: int = 500) -> Overview:
    """Read the splits of a data set, and `check` images of each, evenly spread (0: all).

    Without `splits`, those of train, val and test that can be read are read.

    Raises:
        DataError: a split that was named cannot be read, or none can.
    """
    read: list[SplitOverview] = []
    not_read: list[str] = []
    errors: list[ContrexError] = []
    for split in splits or SPLITS:
        try:
            images = image_set(data, split)
        except ContrexError as error:
            if splits:
                raise
            errors.append(error)
            not_read.append(f"{split:6} not read: {error}")
            continue
        same = next((one.split for one in read if one.images.name == images.name), None)
        if same is None:
            read.append(_split_overview(split, images, check))
        else:
            not_read.append(f"{split:6} the same images as {same}")
    if not read:
        raise errors[0]
    return Overview(data, read, not_read, _disagreements(read))


def printable(text: str) -> str:
    r"""The text with escapes for everything that a terminal would obey or not show.

    >>> printable("tabby\x1b[2J, café")
    'tabby\\x1b[2J, café'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- one split ------------------------------------------------------------------------------------------------------


def _split_overview(split: str, images: ImageSet, check: int) -> SplitOverview:
    if len(images) == 0:
        raise DataError(f"{images.name} has no images.")
    labels = np.array([images.label(index) for index in range(len(images))], dtype=np.int64)
    places = np.linspace(0, len(images) - 1, min(check or len(images), len(images)))
    checked = sorted(set(places.round().astype(int).tolist()))
    read, faults = _read(images, checked)
    problems = [f"{_count(len(faults), 'image')} cannot be read: {_names(faults)}"] if faults else []
    if images.skipped:
        problems.append(f"{_count(len(images.skipped), 'image')} left out as unreadable: {_names(images.skipped)}")
    number = int((labels < 0).sum()) if images.has_labels else 0
    problems += [f"{_count(number, 'image')} without a label"] if number else []
    outside = [sample.path for sample in read if _reaches_beyond(sample)]
    problems += [f"{_count(len(outside), 'image')} with boxes outside of it: {_names(outside)}"] if outside else []
    return SplitOverview(
        split=split,
        images=images,
        labels=labels,
        checked=checked,
        sizes=[sample.image.size for sample in read],
        num_boxes=[len(sample.boxes) for sample in read],
        num_masks=sum(sample.mask is not None for sample in read),
        problems=problems,
    )


def _read(images: ImageSet, indices: Sequence[int]) -> tuple[list[Sample], list[str]]:
    """Read samples; return them without their pixels, and the reasons why others cannot be read."""
    read, faults = [], []
    for index in indices:
        try:
            sample = images[index]
        except DataError as error:
            faults.append(str(error))
        else:
            read.append(replace(sample, image=Image.new("1", sample.image.size)))
    return read, faults


def _reaches_beyond(sample: Sample) -> bool:
    """Whether a box reaches out of its image by more than one pixel, in which conventions differ."""
    width, height = sample.image.size
    low, high = sample.boxes[:, :2], sample.boxes[:, 2:]
    return bool((low < -1).any() or (high > (width + 1, height + 1)).any())


def _disagreements(splits: Sequence[SplitOverview]) -> list[str]:
    """What splits disagree on: the classes, and which of them have images."""
    first, *others = splits
    sentences = [
        f"{first.split} and {other.split} have different classes: {_classes(sorted(different))}"
        for other in others
        if (different := set(first.images.classes).symmetric_difference(other.images.classes))
    ]
    train = next((split for split in splits if split.split == "train"), None)
    for split in splits if train is not None and not sentences else ():
        lacking = sorted(set(split.labels.tolist()) - set(train.labels.tolist()) - {-1}) if train is not None else []
        if lacking:
            names = _classes([split.images.classes[label] for label in lacking])
            sentences.append(
                f"{split.split} has images of {_count(len(lacking), 'class')} without training images: {names}"
            )
    if train is not None and (empty := sorted(set(range(len(train.images.classes))) - set(train.labels.tolist()))):
        names = _classes([train.images.classes[label] for label in empty])
        sentences.append(f"train has no image of {len(empty)} of its {len(train.images.classes)} classes: {names}")
    return sentences


# --- words ----------------------------------------------------------------------------------------------------------


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_NAMES} more" if len(names) > NUM_NAMES else ""
    return "; ".join(names[:NUM_NAMES]) + more


def _classes(names: Sequence[str]) -> str:
    """The names of classes in a sentence, each without its synonyms."""
    return _names([name.split(",")[0] for name in names])


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def _extent(sizes: Sequence[tuple[int, int]]) -> str:
    """The sizes of the smallest and the largest image, width x height, in words."""
    if not sizes:
        return "none can be read"
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    texts = [f"{width} x {height}" for width, height in (ordered[0], ordered[-1])]
    return f"{texts[0]} pixels" if len(set(sizes)) == 1 else f"{texts[0]} to {texts[1]} pixels"


def _boxes(numbers: Sequence[int]) -> str:
    having = [number for number in numbers if number]
    if not having:
        return "none"
    return f"{sum(having)} on {len(having)} of {len(numbers)} images"


# --- the sheet ------------------------------------------------------------------------------------------------------


def contact_sheet(split: SplitOverview, *, num: int) -> Image.Image:
    """A picture of at most `num` images, of as many classes as possible, with boxes, masks and class names."""
    chosen = _chosen(split.labels, num)
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    head, cell = LINE + 2 * MARGIN, (SIDE + MARGIN, SIDE + 2 * LINE + MARGIN)
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, head + rows * cell[1]), PAPER)
    title = f"{split.images.name}: {len(split.images)} images, {len(split.images.classes)} classes"
    _write(sheet, (MARGIN, MARGIN), title, sheet.width - 2 * MARGIN)
    for place, index in enumerate(chosen):
        corner = (MARGIN + place % columns * cell[0], head + place // columns * cell[1])
        _draw_sample(sheet, corner, split, index)
    return sheet


def _chosen(labels: NDArray[np.int64], num: int) -> list[int]:
    """At most `num` images of evenly spread classes: the first of each class, then the second, and so on."""
    present = np.unique(labels)
    if len(present) > num:
        present = present[np.linspace(0, len(present) - 1, num).round().astype(int)]
    of_class = [np.flatnonzero(labels == label).tolist() for label in present]
    taken: list[int] = []
    for turn in range(max(map(len, of_class))):
        taken += [indices[turn] for indices in of_class if turn < len(indices)]
        if len(taken) >= num:
            break
    return sorted(taken[:num], key=lambda index: (labels[index], index))


def _draw_sample(sheet: Image.Image, corner: tuple[int, int], split: SplitOverview, index: int) -> None:
    """Draw a picture with its class and size below, or a grey square with the reason if it cannot be read."""
    left, top = corner
    label = int(split.labels[index])
    name = split.images.classes[label] if label >= 0 else "no label"
    try:
        sample = split.images[index]
    except DataError as error:
        sheet.paste(EMPTY, (left, top, left + SIDE, top + SIDE))
        second = str(error)
    else:
        picture = _picture(sample)
        sheet.paste(picture, (left, top + SIDE - picture.height))
        also = f" or {len(sample.also)} more" if sample.also else ""
        name, second = name + also, f"{sample.image.width} x {sample.image.height}  "
        second += _fitting(sample.path, SIDE - FONT.getlength(second), keep_end=True)
    _write(sheet, (left, top + SIDE), name, SIDE)
    _write(sheet, (left, top + SIDE + LINE), second, SIDE)


def _picture(sample: Sample) -> Image.Image:
    """The image, resized to fit a square; the background of its mask is dimmed, and boxes are drawn."""
    scale = SIDE / max(sample.image.size)
    size = (max(round(sample.image.width * scale), 1), max(round(sample.image.height * scale), 1))
    picture = sample.image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    if sample.mask is not None:
        mask = Image.fromarray(sample.mask).resize(size, Image.Resampling.NEAREST)
        picture = Image.composite(picture, Image.blend(picture, Image.new("RGB", size, PAPER), 0.7), mask)
    draw = ImageDraw.Draw(picture)
    for color, width in ((PAPER, 4), (BOX, 2)):  # all light edges first, so that none hides another box
        for box in (sample.boxes * scale).tolist():
            draw.rectangle(_inside(box, size), outline=color, width=width)
    return picture


def _inside(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a box's outline, moved into the picture if they are outside."""
    left, top = (min(max(round(edge), 0), side - 1) for edge, side in zip(box[:2], size, strict=True))
    right, bottom = (min(max(round(edge) - 1, 0), side - 1) for edge, side in zip(box[2:], size, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _write(sheet: Image.Image, corner: tuple[int, int], text: str, width: int) -> None:
    """Write a line of text, cut to fit."""
    ImageDraw.Draw(sheet).text(corner, _fitting(text, width), fill=INK, font=FONT)


def _fitting(text: str, width: float, *, keep_end: bool = False) -> str:
    """The text, cut to `width` pixels at its end or, with `keep_end`, at its beginning."""
    text = printable(text)
    if FONT.getlength(text) <= width:
        return text
    while text and FONT.getlength(f"...{text}") > width:
        text = text[1:] if keep_end else text[:-1]
    return f"...{text}" if keep_end else f"{text}..."
