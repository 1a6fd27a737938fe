"""Images without labels: those of a folder and of all folders below it (CGC, section 4.3)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from contrex.data.files.folders import ImageFiles
from contrex.data.files.images import is_image
from contrex.errors import DataError


class UnlabelledFolder(ImageFiles):
    """The images of a folder and of all folders below it, in the order of their paths, without labels.

    Hidden files and folders are left out, links to folders are followed, each folder once.

    Raises `DataError` where there is no such folder, or no image in it.
    """

    classes: Sequence[str] = ()

    def __init__(self, root: Path, *, on_bad_image: str) -> None:
        if not root.is_dir():
            raise DataError(f"`labelled.unlabelled` must be a folder with images; there is no folder '{root}'.")
        found = sorted(_images_below(root))
        if not found:
            raise DataError(f"`labelled.unlabelled` '{root}' has no images, nor have the folders below it.")
        every = ((path, -1) for path in found)
        super().__init__(root, "unlabelled", every, boxes={}, limit_per_class=None, on_bad_image=on_bad_image)
        self.name = f"{root.name} ({len(self)} unlabelled)"


def _images_below(root: Path) -> Iterator[str]:
    """The paths of images below `root`, with forward slashes."""
    seen: set[Path] = set()
    for folder, folders, files in os.walk(root, onerror=_unreadable, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(root)
        yield from ((below / name).as_posix() for name in files if is_image(name) and Path(folder, name).is_file())


def _unreadable(error: OSError) -> None:
    raise DataError(f"folder '{error.filename}' cannot be read: {error.strerror}. Allow it, or leave it out.") from None
