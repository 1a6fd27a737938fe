"""Data sets of Hugging Face `datasets`, an extra: pip install "contrex[hf]".

    PATH/dataset_dict.json, PATH/train/state.json   a folder that `save_to_disk` wrote, with or without splits
    PATH/...                                        any other folder that `load_dataset` reads: parquet, image folders
    uoft-cs/cifar10                                 a name: read from the cache, fetched only with `download`

Labels are those of a column of classes, which has their names, or whole numbers from 0, which are their own names. -1,
as sets without labels have, is refused. `val` is also found as `validation`. Images are decoded here, as all others,
not by `datasets`. No code of a data set is run: version 2.20 of `datasets` was the first that does not by itself.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contrex.data.files.folders import holds
from contrex.data.files.images import decoded_image, read_image
from contrex.data.files.tables import numbered_classes
from contrex.data.sample import ImageSet
from contrex.errors import DataError, ImageError, unknown_name
from contrex.settings import HuggingFace

SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in its folder: the first with splits, the second without."""

OFFLINE = {
    "datasets.config": ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"),
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
}
"""The switches that keep `datasets` and what it calls off the network, by module."""


class HuggingFaceImages(ImageSet):
    """One split of a `HuggingFace` data set as an `ImageSet`; see the module's docstring.

    A sample's path is `split/00017`, its number in the split as the data set stores it.

    Raises `DataError` without the extra, for a data set that cannot be loaded, a column that is missing or holds
    something else and labels that are unknown; `UnknownNameError` for an unknown split.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether `save_to_disk` wrote `path`."""
        return holds(path, *SAVED)

    def __init__(self, settings: HuggingFace, split: str) -> None:
        self.settings = settings
        found = _splits(settings)
        self._split = settings.splits.get(split, "validation" if split == "val" and "val" not in found else split)
        self._rows = _rows(found, settings, self._split)
        labels = _labels(self._rows, settings)
        self.classes = _class_names(found, self._rows, settings)
        _check_labels(labels, self.classes, settings)
        self._numbers = _chosen(labels, settings.limit_per_class)
        self.labels = labels[self._numbers]
        self.name = f"{settings.path.name}/{split}"

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Read the RGB pixels of sample `index`."""
        return _image(self._rows, int(self._numbers[index]), self.settings, self.path(index))

    def label(self, index: int) -> int:
        """The label of sample `index` without decoding its image."""
        return int(self.labels[index])

    def path(self, index: int) -> str:
        """The path of sample `index` without decoding its image."""
        return f"{self._split}/{self._numbers[index]:05d}"


# --- loading --------------------------------------------------------------------------------------------------------


def _splits(settings: HuggingFace) -> Mapping[str, Any]:
    """The data set's splits; one that was saved without any has a `train` split."""
    datasets = _library()
    with _offline(not settings.download):
        try:
            found = _loaded(datasets, settings)
        except Exception as error:  # datasets raises its own, huggingface_hub's, pyarrow's and built-in ones
            advice = "" if settings.path.is_dir() or settings.download else _not_cached(settings)
            raise DataError(f"datasets cannot load '{settings.path.as_posix()}': {error}{advice}") from error
    return found if isinstance(found, Mapping) else {"train": found}


def _rows(found: Mapping[str, Any], settings: HuggingFace, split: str) -> Any:
    """The rows of a split, with undecoded images."""
    if split not in found:
        raise unknown_name(f"`split` of '{settings.path.as_posix()}' (see `splits`)", split, found)
    rows = found[split]
    for name, column in (("image", settings.image), ("label", settings.label)):
        if column not in rows.column_names:
            raise unknown_name(f"`{name}`, the column,", column, rows.column_names)
    if not isinstance(rows.features[settings.image], _library().Image):
        raise DataError(f"`image` column '{settings.image}' holds {rows.features[settings.image]}, not images.")
    return rows.cast_column(settings.image, _library().Image(decode=False))


def _loaded(datasets: Any, settings: HuggingFace) -> Any:
    folder = settings.path
    if any((folder / name).is_file() for name in SAVED):
        return datasets.load_from_disk(str(folder))
    return datasets.load_dataset(folder.as_posix(), settings.config, revision=settings.revision)


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(f'Hugging Face data sets need an extra ({error}): pip install "contrex[hf]"') from None


def _not_cached(settings: HuggingFace) -> str:
    return (
        f" There is no folder of that name, and the network is not used: add --data.download to fetch "
        f"'{settings.path.as_posix()}' once, or name a folder."
    )


@contextmanager
def _offline(off: bool) -> Iterator[None]:
    """The switches set for a while, and as they were afterwards. They are read when something is fetched, not when the
    libraries are imported as the environment variables are."""
    before: list[tuple[Any, str, Any]] = []
    for module_name, switches in OFFLINE.items() if off else ():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        before += [(module, switch, getattr(module, switch)) for switch in switches if hasattr(module, switch)]
    try:
        for module, switch, _ in before:
            setattr(module, switch, True)
        yield
    finally:
        for module, switch, value in before:
            setattr(module, switch, value)


# --- labels and images ----------------------------------------------------------------------------------------------


def _labels(rows: Any, settings: HuggingFace) -> Any:
    """The labels int64 [N]."""
    values = rows[settings.label]
    try:
        labels = np.array(list(values))
    except ValueError:
        labels = np.array(list(values), dtype=object)
    if labels.ndim != 1 or (len(labels) and labels.dtype.kind not in "iu"):
        raise DataError(f"`label` column '{settings.label}' must hold a class or a whole number in each row.")
    if labels.min(initial=0) < 0:
        raise DataError(f"`label` column '{settings.label}' has rows without a label (-1). Choose another split.")
    if labels.max(initial=0) >= 2**31:
        raise DataError(
            f"`label` column '{settings.label}' holds {labels.max()}, too large to be a class. Renumber them."
        )
    return labels.astype(np.int64)


def _check_labels(labels: Any, classes: Sequence[str], settings: HuggingFace) -> None:
    largest = labels.max(initial=-1)
    if largest >= len(classes):
        raise DataError(
            f"`label` column '{settings.label}' holds the label {largest}, which is not in 0..{len(classes) - 1}, the "
            f"classes of the column. Cast it to the classes that it has."
        )


def _class_names(found: Mapping[str, Any], rows: Any, settings: HuggingFace) -> Sequence[str]:
    """The names of the column's classes; numbered where it has none, up to the largest label of all splits, so that
    they agree."""
    names = getattr(rows.features[settings.label], "names", None)
    if names:
        return tuple(names)
    every = [list(one[settings.label]) for one in found.values() if settings.label in one.column_names]
    largest = max(max(labels, default=-1) for labels in every)
    return tuple(numbered_classes(largest + 1, f"`label` column '{settings.label}'"))


def _chosen(labels: Any, limit: int | None) -> Any:
    """The numbers of the rows that are used, rising."""
    if limit is None:
        return np.arange(len(labels))
    counts, kept = Counter[int](), []
    for number, label in enumerate(labels.tolist()):
        counts[label] += 1
        if counts[label] <= limit:
            kept.append(number)
    return np.array(kept, dtype=np.int64)


def _image(rows: Any, number: int, settings: HuggingFace, path: str) -> Image.Image:
    stored = rows[number][settings.image]
    content, file = stored.get("bytes"), stored.get("path")
    name = f"{settings.path.as_posix()}: {path}"
    if content is not None:
        return decoded_image(content, name)
    if file is None:
        raise ImageError(f"cannot read image '{name}': the row holds none. Choose another `image` column.")
    return read_image(file)
