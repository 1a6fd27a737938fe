"""What a run leaves behind, as dataclasses that go to JSON and back.

One evaluated classifier is one folder:

    record.json   a `Record`: configuration, versions, seeds, metrics with intervals, training curves
    sheets/*.png  pictures of what the run was trained on
    samples.csv   one row per image: path, label, prediction, probability and one column per metric
    gallery.npz   the pictures and heatmaps that a report shows

`contrex.report` reads nothing else, so any run of any machine can be rendered again.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import types
import typing
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contrex.errors import RecordError, unknown_name
from contrex.outside import is_outside, outside, outside_name

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MetricRecord:
    """One metric of one run.

    `value` is the mean over the `num_counted` images, in `unit`; `low` and `high` bound its 95 % bootstrap
    interval (NaN when there are fewer than two images). `num_skipped` images had no defined value: `skip_reason`
    says which those are.
    """

    name: str
    title: str
    value: float
    low: float
    high: float
    num_counted: int
    num_skipped: int
    skip_reason: str
    unit: str
    higher_is_better: bool | None
    """None where neither is: a value that others are compared with."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    """The entry of `evaluation.metrics` that it belongs to, which may give several."""


@dataclass(frozen=True)
class Profile:
    """A curve that a metric measured: `lines` by name, each `[(x, mean over images, low, high), ...]` with the ends of
    the 95 % interval."""

    name: str
    title: str
    x_title: str
    y_title: str
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]]


@dataclass(frozen=True)
class Scatter:
    """Points in a plane, such as an embedding by t-SNE: `[(x, y, class, kind), ...]`, class and kind as words."""

    name: str
    title: str
    points: Sequence[tuple[float, float, str, str]]


@dataclass(frozen=True)
class Record:
    """What was run, on what, with which result."""

    name: str
    created: str
    command: str
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]
    seed: int
    dataset: Mapping[str, Any]
    classes: Sequence[str]
    metrics: Sequence[MetricRecord]
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Training curves: name -> [(epoch, value), ...]."""
    profiles: Sequence[Profile] = ()
    scatters: Sequence[Scatter] = ()
    skipped_images: Sequence[str] = ()
    schema_version: int = SCHEMA_VERSION

    def metric(self, name: str) -> MetricRecord | None:
        """The metric called `name`, or None when the run did not measure it."""
        return next((metric for metric in self.metrics if metric.name == name), None)


@dataclass(frozen=True)
class Gallery:
    """The pictures a report shows, G of them, the same ones for every run over one data set.

    `images[i]` is uint8 [H,W,3]; `heatmaps[i]` is the raw signed map, float32 [h,w], of the *label*'s class over the
    same field of view (h, w at layer size); `boxes[i]` is float32 [M,4], xyxy in pixels of `images[i]`, M may be 0.
    `paths`, `labels`, `predictions`, `probabilities` (of the prediction) go with them.
    """

    images: Sequence[NDArray[np.uint8]]
    heatmaps: Sequence[NDArray[np.float32]]
    boxes: Sequence[NDArray[np.float32]]
    paths: Sequence[str]
    labels: Sequence[int]
    predictions: Sequence[int]
    probabilities: Sequence[float]


@dataclass(frozen=True)
class RunRecord:
    """A record with the files beside it."""

    record: Record
    samples: Sequence[Mapping[str, str]]
    gallery: Gallery | None
    sheets: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by title."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either what it held before or all of it, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` (dataclasses, mappings, sequences, paths, scalars) as readable JSON, atomically."""
    text = json.dumps(to_plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode(errors="backslashreplace"))  # names of files may be no Unicode


def to_plain(value: object) -> Any:
    """`value` with dataclasses as dicts (their class under "kind"), paths as text, NaN and infinity as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": kind_name(type(value)), **plain}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def kind_name(kind: type) -> str:
    """The tag of a dataclass: its name; of a member of a family that is defined outside of contrex, `FILE.py:NAME`."""
    is_outside = hasattr(kind, "is_family") and kind.__module__.partition(".")[0] != "contrex"
    return outside_name(kind) if is_outside else kind.__name__


def from_plain(plain: Any, kind: Any, *, where: str = "value") -> Any:
    """The inverse of `to_plain` for the type `kind`: dataclasses (and unions and families of them, by their tag),
    tuples, dicts, literals, paths and scalars. Nothing is converted that JSON already tells apart: "false" is no bool,
    1.9 no int.

    A family is a dataclass with `is_family`: its members are those that derive from it. A tag of the form
    `FILE.py:NAME` loads that file, as importing it does.

    Raises:
        RecordError: a field is missing, or a value has another type; `where` names it.
        UnknownNameError: there is no such field or tag.
        ArgumentError: the dataclass itself refuses a value, or the file of a tag cannot be loaded.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _from_union(plain, parts, where)
    if isinstance(kind, type) and "is_family" in vars(kind):
        return _from_family(plain, kind, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _from_fields(plain, kind, where)
    if origin is tuple:
        return _from_list(plain, parts, where)
    if origin is dict:
        _expect(isinstance(plain, Mapping), where, "names with values", plain)
        return {key: from_plain(value, parts[1], where=f"{where}.{key}") for key, value in plain.items()}
    if origin is typing.Literal:
        _expect(plain in parts, where, f"one of {', '.join(map(str, parts))}", plain)
        return plain
    accepted = {float: (float, int), Path: (str,)}.get(kind, (kind,))
    fits = isinstance(plain, accepted) and (kind is bool or not isinstance(plain, bool))
    _expect(fits, where, getattr(kind, "__name__", str(kind)), plain)
    return kind(plain)


def _expect(ok: bool, where: str, what: str, plain: object) -> None:
    if not ok:
        raise RecordError(f"{where} must be {what}, got {plain!r}.")


def _from_union(plain: Any, kinds: Sequence[Any], where: str) -> Any:
    if plain is None and type(None) in kinds:
        return None
    names = {kind_name(kind): kind for kind in kinds if kind is not type(None)}
    if len(names) == 1:
        return from_plain(plain, *names.values(), where=where)
    _expect(isinstance(plain, Mapping) and "kind" in plain, where, f"fields with the kind {' or '.join(names)}", plain)
    if plain["kind"] not in names:
        raise unknown_name(f"{where}.kind", plain["kind"], names)
    return from_plain(plain, names[plain["kind"]], where=where)


def _from_family(plain: Any, family: type, where: str) -> Any:
    kinds = list(_members(family))
    tag = plain.get("kind") if isinstance(plain, Mapping) else None
    if isinstance(tag, str) and is_outside(tag) and tag not in map(kind_name, kinds):
        named: Any = outside(tag, f"{where}.kind")
        fits = isinstance(named, type) and issubclass(named, family)
        _expect(fits, f"{where}.kind", f"a class that derives from contrex.settings.{family.__name__}", tag)
        return _from_fields({**plain, "kind": kind_name(named)}, named, where)
    return _from_union(plain, kinds, where)


def _members(family: type) -> Iterator[type]:
    """The dataclasses that derive from `family`, however far; not those that only hold what several share."""
    derived: list[type] = family.__subclasses__()
    for kind in derived:
        if getattr(kind, "implementation", True):
            yield kind
        yield from _members(kind)


def _from_list(plain: Any, parts: Sequence[Any], where: str) -> tuple[Any, ...]:
    """A tuple of one kind and any length, `tuple[int, ...]`, or of one kind for each place."""
    _expect(isinstance(plain, (list, tuple)), where, "a list", plain)
    kinds = [parts[0]] * len(plain) if parts[-1] is Ellipsis else parts
    _expect(len(plain) == len(kinds), where, f"a list of {len(kinds)}", plain)
    return tuple(from_plain(value, kind, where=where) for value, kind in zip(plain, kinds, strict=True))


def _from_fields(plain: Any, kind: type, where: str) -> Any:
    fits = isinstance(plain, Mapping) and plain.get("kind", kind_name(kind)) == kind_name(kind)
    _expect(fits, where, f"the fields of {kind.__name__}", plain)
    every = typing.get_type_hints(kind)
    hints = {field.name: every[field.name] for field in dataclasses.fields(kind)}  # without what the class itself has
    for name in plain:
        if name not in hints and name != "kind":
            raise unknown_name(where, name, hints)
    values = {
        name: from_plain(value, hints[name], where=f"{where}.{name}") for name, value in plain.items() if name != "kind"
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise RecordError(f"{where}: {error}.") from None


def write_run(folder: Path, run: RunRecord) -> None:
    """Write `record.json` and the files beside it into `folder`; the record comes last, so that a folder that has one
    is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in (folder / "sheets").glob("*.png"):
        earlier.unlink()
    for number, (title, picture) in enumerate(run.sheets.items()):
        write_atomically(folder / "sheets" / f"{number:02d} {title}.png", picture)
    if run.samples:
        write_atomically(folder / "samples.csv", _csv(run.samples))
    if run.gallery is not None:
        _write_gallery(folder / "gallery.npz", run.gallery)
    write_json(folder / "record.json", run.record)


def read_run(folder: Path) -> RunRecord:
    """Read what `write_run` wrote.

    Raises:
        RecordError: there is no record, it is damaged, or another schema version wrote it.
    """
    path = folder / "record.json"
    if not path.is_file():
        raise RecordError(f"no record in {folder}: expected {path}. `contrex evaluate` writes one.")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        version = plain["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"{path} is not a contrex record: {error}") from None
    if version != SCHEMA_VERSION:
        raise RecordError(f"{path} has schema version {version}, this contrex reads {SCHEMA_VERSION}: evaluate again.")
    samples_path, gallery_path = folder / "samples.csv", folder / "gallery.npz"
    samples = _read_csv(samples_path) if samples_path.is_file() else []
    gallery = _read_gallery(gallery_path) if gallery_path.is_file() else None
    sheets = {path.stem[3:]: path.read_bytes() for path in sorted((folder / "sheets").glob("*.png"))}
    return RunRecord(_record(plain, path), samples, gallery, sheets)


def _record(plain: dict[str, Any], path: Path) -> Record:
    fields = {key: value for key, value in plain.items() if key != "kind"}
    try:
        fields["metrics"] = [_metric(metric) for metric in fields["metrics"]]
        fields["profiles"] = [_profile(profile) for profile in fields.get("profiles", ())]
        fields["scatters"] = [_scatter(scatter) for scatter in fields.get("scatters", ())]
        fields["curves"] = {name: [(x, y) for x, y in points] for name, points in fields["curves"].items()}
        return Record(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is not a contrex record: {error}") from None


def _metric(plain: Mapping[str, Any]) -> MetricRecord:
    fields = {key: value for key, value in plain.items() if key != "kind"}
    for number in ("value", "low", "high"):
        fields[number] = float("nan") if fields[number] is None else float(fields[number])
    return MetricRecord(**fields)


def _profile(plain: Mapping[str, Any]) -> Profile:
    fields = {key: value for key, value in plain.items() if key != "kind"}
    lines = {
        name: [(x, *(math.nan if y is None else float(y) for y in values)) for x, *values in points]
        for name, points in fields["lines"].items()
    }
    return Profile(**{**fields, "lines": lines})


def _scatter(plain: Mapping[str, Any]) -> Scatter:
    points = [(float(x), float(y), str(label), str(kind)) for x, y, label, kind in plain["points"]]
    return Scatter(plain["name"], plain["title"], points)


def _csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode(errors="backslashreplace")


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


_PER_IMAGE_ARRAYS = ("images", "heatmaps", "boxes")
_COLUMNS = ("paths", "labels", "predictions", "probabilities")


def _write_gallery(path: Path, gallery: Gallery) -> None:
    arrays = {name: np.asarray(getattr(gallery, name)) for name in _COLUMNS}
    for name in _PER_IMAGE_ARRAYS:
        arrays |= {f"{name}_{index:04d}": array for index, array in enumerate(getattr(gallery, name))}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    write_atomically(path, stream.getvalue())


def _read_gallery(path: Path) -> Gallery:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns: dict[str, Any] = {name: arrays[name].tolist() for name in _COLUMNS}
            for name in _PER_IMAGE_ARRAYS:
                columns[name] = [arrays[f"{name}_{index:04d}"] for index in range(len(columns["paths"]))]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} is damaged: {error}") from None
    return Gallery(**columns)
