"""Images without labels: those of a folder and of all folders below it, beside labelled ones (CGC, section 4.3) or
alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from contrex.data.files.copies import content_keys
from contrex.data.files.folders import ImageFiles
from contrex.data.files.images import is_image
from contrex.data.streams import stream
from contrex.errors import DataError
from contrex.settings import UnlabelledPhotos


class UnlabelledFolder(ImageFiles):
    """The images of a folder and of all folders below it, in the order of their paths, without labels.

    Hidden files and folders are left out, links to folders are followed, each folder once.

    Raises `DataError` where there is no such folder, or no image in it.
    """

    classes: Sequence[str] = ()
    has_labels = False

    def __init__(self, root: Path, *, on_bad_image: str) -> None:
        every = ((path, -1) for path in _found(root, "`labelled.unlabelled`"))
        super().__init__(root, "unlabelled", every, boxes={}, limit_per_class=None, on_bad_image=on_bad_image)
        self.name = f"{root.name} ({len(self)} unlabelled)"


class UnlabelledImages(ImageFiles):
    """The photos of `UnlabelledPhotos` to train on, `train`, or those kept out, `val`, which are drawn by `val_seed`.

    A photo that is there several times, as copies or by links, is one. `draw_sha256` is that of the draw: which photos,
    by their paths in their own folders, are kept out and which are not.

    Raises `DataError` where there is no such folder or split, or too few images for two splits.
    """

    classes: Sequence[str] = ()
    has_labels = False

    def __init__(self, settings: UnlabelledPhotos, split: str) -> None:
        if split not in ("train", "val"):
            raise DataError(f"photos without labels have the splits train and val, the kept-out ones; got '{split}'.")
        folders = (settings.path, *settings.further)
        for number, folder in enumerate(settings.further, 1):
            _check_apart(folder, folders[:number])
        names = [_found(folder, f"`data.{'further' if number else 'path'}`") for number, folder in enumerate(folders)]
        found = _each_photo_once([(number, name) for number, own in enumerate(names) for name in own], folders)
        if len(found) < 2:
            raise DataError(f"`data.path` '{settings.path}' has one image, and one is kept out: give it more.")
        num_val = min(max(1, round(settings.val_share * len(found))), len(found) - 1)
        # Drawn from the sorted paths, so the same on every machine; a new photo may change who is drawn.
        kept_out = set(stream("val", settings.val_seed).permutation(len(found))[:num_val].tolist())
        draw = (f"{number} {name} {place in kept_out}" for place, (number, name) in enumerate(found))
        self.draw_sha256 = hashlib.sha256(os.fsencode("\n".join(draw))).hexdigest()
        places = [os.path.relpath(folder.resolve(), settings.path.resolve()) for folder in folders]
        every = [
            (Path(places[number], name).as_posix(), -1)
            for place, (number, name) in enumerate(found)
            if (place in kept_out) == (split == "val")
        ]
        own = settings.on_bad_image
        super().__init__(settings.path, split, every, boxes={}, limit_per_class=None, on_bad_image=own)


def _found(root: Path, what: str) -> list[str]:
    """The paths of images below `root`, sorted; `what` names the folder in errors."""
    if not root.is_dir():
        raise DataError(f"{what} must be a folder with images; there is no folder '{root}'.")
    found = sorted(_images_below(root))
    if not found:
        raise DataError(f"{what} '{root}' has no images, nor have the folders below it.")
    return found


def _each_photo_once(found: Sequence[tuple[int, str]], folders: Sequence[Path]) -> list[tuple[int, str]]:
    """The first path of each photo: one that is there twice, as a copy or by a link, could be trained on and kept
    out."""
    keys = content_keys([folders[number] / name for number, name in found])
    first: dict[Hashable, tuple[int, str]] = {}
    for key, place in zip(keys, found, strict=True):
        first.setdefault(key, place)
    return list(first.values())


def _check_apart(folder: Path, others: Sequence[Path]) -> None:
    """Refuse a folder whose photos are among those of another: one kept out of it would be trained on."""
    for other in others:
        one, two = folder.resolve(), other.resolve()
        if one.is_relative_to(two) or two.is_relative_to(one):
            raise DataError(f"`data.further` '{folder}' and '{other}' have photos in common: leave one of them out.")


def _images_below(root: Path) -> Iterator[str]:
    """The paths of images below `root`, with forward slashes."""
    seen: set[Path] = set()
    for folder, folders, files in os.walk(root, onerror=_unreadable, followlinks=True):
        real = Path(folder).resolve()
        # A link to a folder above would lead around in a circle for ever.
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Changed in place, which is how `os.walk` is told where to go on.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(root)
        yield from ((below / name).as_posix() for name in files if is_image(name) and Path(folder, name).is_file())


def _unreadable(error: OSError) -> None:
    raise DataError(f"folder '{error.filename}' cannot be read: {error.strerror}. Allow it, or leave it out.") from None
