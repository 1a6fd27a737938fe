"""Writing and reading the folder of a run."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contrex.errors import RecordError
from contrex.records import version1
from contrex.records.plain import write_atomically, write_json
from contrex.records.record import (
    SCHEMA_VERSION,
    Gallery,
    MetricFamily,
    MetricRecord,
    Profile,
    Record,
    RunRecord,
    Samples,
    Scatter,
)


def write_run(folder: Path, run: RunRecord) -> None:
    """Write `record.json` and the files beside it into `folder`.

    The record is written last, and all of before goes first, the record before the rest: a folder that has one is
    complete, and has nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in ("record.json", "samples.csv", "samples.npz", "gallery.npz"):
        (folder / earlier).unlink(missing_ok=True)
    for sheet in (folder / "sheets").glob("*.png"):
        sheet.unlink()
    for number, (title, picture) in enumerate(run.sheets.items()):
        write_atomically(folder / "sheets" / f"{number:02d} {title}.png", picture)
    if len(run.samples):
        _write_samples(folder, run.samples)
    if run.gallery is not None:
        _write_gallery(folder / "gallery.npz", run.gallery)
    write_json(folder / "record.json", run.record)


def read_run(folder: Path) -> RunRecord:
    """Read a folder that `write_run` wrote, now or when records had version 1.

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
    if version not in (1, SCHEMA_VERSION):
        raise RecordError(
            f"{path} has schema version {version}, this contrex reads 1 and {SCHEMA_VERSION}: evaluate again."
        )
    samples = _read_samples(folder)
    gallery_path = folder / "gallery.npz"
    gallery = _read_gallery(gallery_path) if gallery_path.is_file() else None
    sheets = {path.stem[3:]: path.read_bytes() for path in sorted((folder / "sheets").glob("*.png"))}
    try:
        record = _record(version1.completed(plain, samples) if version == 1 else plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path} is not a contrex record: {error}") from None
    return RunRecord(record, samples, gallery, sheets)


# --- record.json ----------------------------------------------------------------------------------------------------


def _record(plain: Mapping[str, Any]) -> Record:
    fields = _fields(plain)
    fields["metrics"] = [_metric(metric) for metric in fields["metrics"]]
    fields["profiles"] = [_profile(profile) for profile in fields.get("profiles", ())]
    fields["scatters"] = [_scatter(scatter) for scatter in fields.get("scatters", ())]
    fields["curves"] = {name: [(x, y) for x, y in points] for name, points in fields["curves"].items()}
    return Record(**fields)


def _fields(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key != "kind"}


def _metric(plain: Mapping[str, Any]) -> MetricRecord:
    numbers = {name: math.nan if plain[name] is None else float(plain[name]) for name in ("value", "low", "high")}
    return MetricRecord(**{**_fields(plain), **numbers, "family": MetricFamily(**_fields(plain["family"]))})


def _profile(plain: Mapping[str, Any]) -> Profile:
    lines = {
        name: [(x, *(math.nan if y is None else float(y) for y in values)) for x, *values in points]
        for name, points in plain["lines"].items()
    }
    return Profile(**{**_fields(plain), "lines": lines})


def _scatter(plain: Mapping[str, Any]) -> Scatter:
    points = [(float(x), float(y), str(label), str(kind)) for x, y, label, kind in plain["points"]]
    return Scatter(plain["name"], plain["title"], points)


# --- samples --------------------------------------------------------------------------------------------------------

_COLUMNS = ("path", "label", "prediction", "probability")
"""The first columns of samples.csv; those of the metrics follow."""
_VALUE = "value "
"""What stands before the name of a metric in samples.npz, so that it cannot be the name of another array."""


def _write_samples(folder: Path, samples: Samples) -> None:
    """Write samples.npz for programs, with the exact numbers, and samples.csv for people, rounded."""
    arrays = {
        "paths": np.asarray(samples.paths, dtype=np.str_),
        "labels": samples.labels,
        "predictions": samples.predictions,
        "probabilities": samples.probabilities,
        **{f"{_VALUE}{name}": values for name, values in samples.values.items()},
    }
    _write_arrays(folder / "samples.npz", arrays)
    write_atomically(folder / "samples.csv", _csv(samples))


def _csv(samples: Samples) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_COLUMNS, *samples.values])
    labels, predictions = samples.labels.tolist(), samples.predictions.tolist()
    numbers = [samples.probabilities.tolist(), *(values.tolist() for values in samples.values.values())]
    for path, label, prediction, *row in zip(samples.paths, labels, predictions, *numbers, strict=True):
        writer.writerow([path, label, prediction, *("" if math.isnan(value) else f"{value:.6g}" for value in row)])
    return stream.getvalue().encode(errors="backslashreplace")


def _read_samples(folder: Path) -> Samples:
    """Read the samples of a folder; from samples.csv where that is the only file, as in version 1."""
    path, table = folder / "samples.npz", folder / "samples.csv"
    if not path.is_file():
        return _read_table(table) if table.is_file() else Samples()
    arrays = _read_arrays(path)
    values = {name.removeprefix(_VALUE): array for name, array in arrays.items() if name.startswith(_VALUE)}
    try:
        samples = Samples(
            arrays["paths"].tolist(), arrays["labels"], arrays["predictions"], arrays["probabilities"], values
        )
    except KeyError as error:
        raise RecordError(f"{path} is damaged: {error}") from None
    if len({len(array) for array in arrays.values()}) > 1:
        raise RecordError(f"{path} is damaged: its columns have different lengths.")
    return samples


def _read_table(path: Path) -> Samples:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in (rows[0] if rows else ()) if name not in _COLUMNS]

    def column(name: str, kind: type[Any]) -> NDArray[Any]:
        return np.array([_number(row, name, kind) for row in rows], kind)

    return Samples(
        [row["path"] for row in rows],
        column("label", np.int64),
        column("prediction", np.int64),
        column("probability", np.float64),
        {name: column(name, np.float64) for name in names},
    )


def _number(row: Mapping[str, str | None], name: str, kind: type[Any]) -> Any:
    """The number in column `name` of a row of samples.csv; NaN for an empty cell."""
    text = row.get(name)
    if kind is np.float64 and not text:
        return math.nan
    try:
        return kind(text)
    except (TypeError, ValueError):
        empty = " or empty" if kind is np.float64 else ""
        raise RecordError(
            f"`{name}` of {row.get('path')} in samples.csv must be a number{empty}, got {text!r}. Evaluate again."
        ) from None


# --- gallery --------------------------------------------------------------------------------------------------------

_PER_IMAGE_ARRAYS = ("images", "heatmaps", "boxes")
_PREDICTED = "predicted_heatmaps"
"""What stands before the index of an image that is classified wrongly."""
_ANSWERS = "answers"
"""What stands before the index of an image that can be asked."""
_GALLERY_COLUMNS = ("paths", "labels", "predictions", "probabilities")


def _write_gallery(path: Path, gallery: Gallery) -> None:
    arrays = {name: np.asarray(getattr(gallery, name)) for name in _GALLERY_COLUMNS}
    for name in _PER_IMAGE_ARRAYS:
        arrays |= {f"{name}_{index:04d}": array for index, array in enumerate(getattr(gallery, name))}
    arrays |= {f"{_PREDICTED}_{index:04d}": array for index, array in gallery.predicted_heatmaps.items()}
    arrays |= {f"{_ANSWERS}_{index:04d}": _as_bytes(text) for index, text in gallery.answers.items()}
    _write_arrays(path, arrays)


def _as_bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)  # numpy would take four bytes for a letter


def _read_gallery(path: Path) -> Gallery:
    arrays = _read_arrays(path)
    try:
        columns: dict[str, Sequence[Any]] = {name: arrays[name].tolist() for name in _GALLERY_COLUMNS}
        for name in _PER_IMAGE_ARRAYS:
            columns[name] = [arrays[f"{name}_{index:04d}"] for index in range(len(columns["paths"]))]
    except KeyError as error:
        raise RecordError(f"{path} is damaged: {error}") from None
    places = range(len(columns["paths"]))
    predicted = {index: arrays[key] for index in places if (key := f"{_PREDICTED}_{index:04d}") in arrays}
    answers = {
        index: arrays[key].tobytes().decode() for index in places if (key := f"{_ANSWERS}_{index:04d}") in arrays
    }
    return Gallery(**columns, predicted_heatmaps=predicted, answers=answers)


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    write_atomically(path, stream.getvalue())


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # opened here, as numpy leaves a damaged file open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} is damaged: {error}") from None
