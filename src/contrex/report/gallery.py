"""The gallery: the same images side by side, with what each method looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from contrex.ops.explorer_page import as_data
from contrex.records import Gallery, RunRecord
from contrex.report.asking import asked_of, explorer_data
from contrex.report.groups import RunGroup
from contrex.report.numbers import NOTHING, number, percent
from contrex.report.pictures import disagreement, is_small, photo_uri, positive_uri, signed_uri
from contrex.report.tables import sample_values

CONTENT = "content_heatmap"
RIGHT = "label, and predicted"
_NAMED = 5


@dataclass(frozen=True)
class Photo:
    """A photograph, stored in the page once; its id is made of `index`."""

    index: int
    uri: str
    width: int
    height: int
    small: bool


@dataclass(frozen=True)
class ShownRun:
    """A run with a gallery: its place among the groups, which gives its colour, and what is looked up by path."""

    series: int
    label: str
    run: RunRecord
    gallery: Gallery
    position: Mapping[str, int]
    content: Mapping[str, float]

    @property
    def region(self) -> str:
        """The word for the region of its content heatmap: the object's "box" or "mask"."""
        metric = self.run.record.metric(CONTENT)
        return "mask" if metric is not None and metric.protocol.get("region") == "mask" else "box"

    def is_wrong(self, path: str) -> bool:
        """Whether another class than the image's label is predicted."""
        index = self.position[path]
        return self.gallery.predictions[index] != self.gallery.labels[index]

    def label_map(self, path: str) -> NDArray[np.float32]:
        """The heatmap of the image's label; what is not finite is 0."""
        return _finite(self.gallery.heatmaps[self.position[path]])

    def predicted_map(self, path: str) -> NDArray[np.float32] | None:
        """The heatmap of the class that is predicted in the place of the label; None if that was not recorded."""
        heatmap = self.gallery.predicted_heatmaps.get(self.position[path])
        return None if heatmap is None or not self.is_wrong(path) else _finite(heatmap)

    def maps(self, path: str) -> list[NDArray[np.float32]]:
        """The maps of an image: that of its label, and that of a wrong prediction where it is recorded."""
        predicted = self.predicted_map(path)
        return [self.label_map(path), *([] if predicted is None else [predicted])]


@dataclass(frozen=True)
class Scales:
    """The ends of the colour bars: for one heatmap, for one image over all runs, and for the whole gallery."""

    positive_own: float
    positive_all: float
    signed_image: float
    signed_all: float


@dataclass(frozen=True)
class HeatmapPanel:
    """A heatmap of one run over its photograph. `explains` is the class that it explains, and `role` what that class is
    to the image, in words: its label, or what is predicted."""

    series: int
    label: str
    photo: Photo
    boxes: Sequence[tuple[float, float, float, float]]
    heats: Mapping[str, str]
    """A picture for each field of `Scales`, by the name of the field."""
    scales: Scales
    note: str
    prediction: str
    probability: str
    content: str
    description: str
    explains: str
    role: str
    target: int
    """The index of the class that it explains."""

    @property
    def right(self) -> bool:
        """Whether the label is predicted."""
        return self.role == RIGHT


@dataclass(frozen=True)
class Card:
    """One image with the panels of all runs, and the numbers that cards can be sorted by (NaN: undefined).

    `panels` has a panel of each run for the label, and one more behind it where the run predicts another class.
    """

    position: int
    path: str
    label: str
    panels: Sequence[HeatmapPanel]
    disagreement: float
    gain: float
    probability: float
    wrong: Sequence[int] = ()
    """The places of the runs that predict another class than the label."""
    asked: str = ""
    """What the explorer needs of the image, as JSON; empty where it cannot be asked."""


@dataclass(frozen=True)
class GalleryPage:
    """All cards; `remarks` say what could not be shown, and why."""

    cards: Sequence[Card] = ()
    photos: Sequence[Photo] = ()
    labels: Sequence[str] = ()
    remarks: Sequence[str] = ()
    regions: Sequence[str] = ()
    """The regions of the content heatmaps ("box", "mask"), where there are any."""
    has_gain: bool = False
    series: Sequence[int] = ()
    """The places of the runs that are shown, with names `labels`."""
    explorer: str = ""
    """The explorer's page, into which images are put, as JSON; empty where none can be asked."""

    @property
    def classes(self) -> list[str]:
        """The labels of the images, each once, in order."""
        return sorted({card.label for card in self.cards})

    @property
    def wrong(self) -> dict[int, str]:
        """The names of the runs that predict wrongly somewhere, by their places."""
        somewhere = {place for card in self.cards for place in card.wrong}
        return {place: name for place, name in zip(self.series, self.labels, strict=True) if place in somewhere}

    @property
    def num_panels(self) -> int:
        """The most pictures of one card."""
        return 1 + max((len(card.panels) for card in self.cards), default=0)


@dataclass
class _Photos:
    """The photographs so far, each different one once."""

    by_content: dict[tuple[tuple[int, ...], bytes], Photo] = field(default_factory=dict)

    def add(self, image: NDArray[np.uint8]) -> Photo:
        key = (image.shape, image.tobytes())
        if key not in self.by_content:
            height, width = image.shape[:2]
            photo = Photo(len(self.by_content), photo_uri(image), width, height, is_small(image))
            self.by_content[key] = photo
        return self.by_content[key]


def gallery_page(groups: Sequence[RunGroup]) -> GalleryPage:
    """The gallery of the images that all groups have in common; of several seeds the first is shown."""
    shown = [
        _shown(series, group, gallery)
        for series, group in enumerate(groups)
        if (gallery := group.runs[0].gallery) is not None
    ]
    paths = common_paths(shown)
    remarks = [*_missing_remarks(groups), *_seed_remarks(groups), *_path_remarks(shown, paths)]
    photos = _Photos()
    limits = _largest(shown, paths)
    cards = [_card(index, path, shown, photos, limits) for index, path in enumerate(paths)]
    cards, explorer = _with_explorer(cards, shown)
    different = [card.path for card in cards if len({panel.photo.index for panel in card.panels}) > 1]
    if different:
        remarks.append(f"The pictures of {_listed(different)} differ between runs; each heatmap lies over its own.")
    remarks += _unrecorded_remarks(shown, paths)
    regions = sorted({s.region for s in shown})
    has_gain = any(not math.isnan(card.gain) for card in cards)
    pictures, names = list(photos.by_content.values()), [s.label for s in shown]
    return GalleryPage(cards, pictures, names, remarks, regions, has_gain, [s.series for s in shown], explorer)


def _with_explorer(cards: Sequence[Card], shown: Sequence[ShownRun]) -> tuple[list[Card], str]:
    """The cards with what the explorer needs of each, and its page."""
    runs = [s.run for s in shown]
    asked = {
        card.path: found
        for card in cards
        if len({panel.photo.index for panel in card.panels}) == 1
        and (found := asked_of(runs, card.path, (card.panels[0].photo.height, card.panels[0].photo.width))) is not None
    }
    told = [replace(card, asked=as_data(asked[card.path]["picture"])) if card.path in asked else card for card in cards]
    return told, explorer_data(runs, [s.label for s in shown], list(asked.values()))


def common_paths(shown: Sequence[ShownRun]) -> list[str]:
    """The paths that every gallery has, in the order of the first."""
    return [path for path in shown[0].position if all(path in s.position for s in shown)] if shown else []


def _shown(series: int, group: RunGroup, gallery: Gallery) -> ShownRun:
    run = group.runs[0]
    position = {path: index for index, path in enumerate(gallery.paths)}
    content = {path: value for (path, _), value in sample_values(run, CONTENT).items()}
    return ShownRun(series, group.label, run, gallery, position, content)


def _missing_remarks(groups: Sequence[RunGroup]) -> list[str]:
    return [f"{g.label} has no pictures (no gallery.npz in its folder)." for g in groups if g.runs[0].gallery is None]


def _seed_remarks(groups: Sequence[RunGroup]) -> list[str]:
    several = [f"{group.label}: seed {group.seeds[0]}" for group in groups if len(group.runs) > 1]
    return [f"Of several seeds, one is shown ({'; '.join(several)})."] if several else []


def _path_remarks(shown: Sequence[ShownRun], paths: Sequence[str]) -> list[str]:
    common = set(paths)
    elsewhere = {path: None for s in shown for path in s.position if path not in common}
    if not elsewhere:
        return []
    if not common:
        return ["The galleries have no image in common, so none is shown."]
    return [f"Not in every gallery, and therefore not shown: {_listed(list(elsewhere))}."]


def _unrecorded_remarks(shown: Sequence[ShownRun], paths: Sequence[str]) -> list[str]:
    """Older records have no maps of predicted classes."""
    lacking = [s.label for s in shown if any(s.is_wrong(path) and s.predicted_map(path) is None for path in paths)]
    if not lacking:
        return []
    names = _listed(lacking)
    return [f"Of images that {names} predicts wrongly, only the map of the label is recorded: evaluate again for both."]


def _listed(names: Sequence[str]) -> str:
    """The first names in a sentence, and how many more there are.

    >>> _listed(["a", "b"]), _listed(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _card(position: int, path: str, shown: Sequence[ShownRun], photos: _Photos, limits: Scales) -> Card:
    image_limit = max(_end(np.abs(heatmap)) for s in shown for heatmap in s.maps(path))
    limits = replace(limits, signed_image=image_limit)
    by_run = [_panels(s, path, photos, limits) for s in shown]
    first = shown[0]
    index = first.position[path]
    label = class_name(first.run, first.gallery.labels[index])
    return Card(
        position,
        path,
        label,
        [panel for panels in by_run for panel in panels],
        _first_two_disagree([s.label_map(path) for s in shown], [panels[0] for panels in by_run]),
        _gain(shown, path),
        float(np.mean([s.gallery.probabilities[s.position[path]] for s in shown])),
        [s.series for s in shown if s.is_wrong(path)],
    )


def _first_two_disagree(maps: Sequence[NDArray[np.float32]], panels: Sequence[HeatmapPanel]) -> float:
    """The disagreement of the first two runs; NaN where their pictures differ or both maps are empty."""
    if len(maps) < 2 or panels[0].photo.index != panels[1].photo.index:
        return math.nan
    return disagreement(maps[0], maps[1], (panels[0].photo.height, panels[0].photo.width))


def _gain(shown: Sequence[ShownRun], path: str) -> float:
    """The content heatmap of the second run minus that of the first."""
    values = [s.content.get(path, math.nan) for s in shown[:2]]
    return values[1] - values[0] if len(values) == 2 else math.nan


def _panels(shown: ShownRun, path: str, photos: _Photos, limits: Scales) -> list[HeatmapPanel]:
    """The panel of the image's label, and that of a class that is wrongly predicted."""
    gallery, index = shown.gallery, shown.position[path]
    panels = [_panel(shown, path, photos, limits, gallery.heatmaps[index], is_label=True)]
    if shown.predicted_map(path) is not None:
        heatmap = gallery.predicted_heatmaps[index]
        panels.append(_panel(shown, path, photos, limits, heatmap, is_label=False))
    return panels


def _panel(
    shown: ShownRun, path: str, photos: _Photos, limits: Scales, heatmap: NDArray[np.float32], *, is_label: bool
) -> HeatmapPanel:
    gallery, index = shown.gallery, shown.position[path]
    finite = _finite(heatmap)
    scales = replace(limits, positive_own=_end(finite))
    photo = photos.add(gallery.images[index])
    prediction = class_name(shown.run, gallery.predictions[index])
    probability = percent(gallery.probabilities[index])
    # The content heatmap was measured on the map of the label.
    content = number(shown.content.get(path, math.nan), 0) if is_label else NOTHING
    note = heatmap_note(heatmap)
    is_right = not shown.is_wrong(path)
    explains = class_name(shown.run, gallery.labels[index]) if is_label else prediction
    role = RIGHT if is_right else "its label" if is_label else "what it predicts"
    return HeatmapPanel(
        shown.series,
        shown.label,
        photo,
        [_box(box) for box in np.asarray(gallery.boxes[index], dtype=np.float32).reshape(-1, 4)],
        heat_pictures(finite, scales, (photo.height, photo.width)),
        scales,
        note,
        prediction,
        probability,
        content,
        f"Heatmap of {shown.label} on {path} for {explains}: predicts {prediction} with {probability}"
        + (f"; {_told(content, note, shown.region)}" if is_label or note else "."),
        explains,
        role,
        int(gallery.labels[index] if is_label else gallery.predictions[index]),
    )


def heat_pictures(heatmap: NDArray[np.float32], scales: Scales, shape: tuple[int, int]) -> dict[str, str]:
    """The heatmap in every colouring that the page can switch to."""
    return {
        "positive_own": positive_uri(heatmap, scales.positive_own, shape),
        "positive_all": positive_uri(heatmap, scales.positive_all, shape),
        "signed_image": signed_uri(heatmap, scales.signed_image, shape),
        "signed_all": signed_uri(heatmap, scales.signed_all, shape),
    }


def heatmap_note(heatmap: NDArray[np.float32]) -> str:
    """A remark on a heatmap that says nothing; empty for a sound one."""
    if not np.isfinite(heatmap).all():
        return "not finite"
    return "empty map" if _end(heatmap) == 0 else ""


def class_name(run: RunRecord, index: int) -> str:
    """The name of a class, or its number where it has none."""
    classes = run.record.classes
    if index < 0:
        return "unknown"
    return classes[index] if index < len(classes) else f"class {index}"


def _told(content: str, note: str, region: str) -> str:
    if note:
        return f"{note}."
    return f"no {region}." if content == NOTHING else f"{content} % of the heatmap inside the {region}."


def _finite(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nan_to_num(heatmap, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)


def _largest(shown: Sequence[ShownRun], paths: Sequence[str]) -> Scales:
    maps = [heatmap for s in shown for path in paths for heatmap in s.maps(path)]
    positive = max((_end(heatmap) for heatmap in maps), default=0.0)
    signed = max((_end(np.abs(heatmap)) for heatmap in maps), default=0.0)
    return Scales(positive, positive, signed, signed)


def _end(values: NDArray[np.float32]) -> float:
    """The largest positive value, 0 when there is none."""
    return max(0.0, float(values.max(initial=0.0)))


def _box(box: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """The x, y, width and height of an xyxy box."""
    left, top, right, bottom = (float(edge) for edge in box)
    return left, top, right - left, bottom - top
