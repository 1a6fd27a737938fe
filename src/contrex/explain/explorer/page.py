"""The explorer's page as a file, and in a notebook."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contrex.errors import ArgumentError
from contrex.explain.explorer.content import Content
from contrex.ops.explorer_page import as_data, explorer_html, picture_element, policy
from contrex.records.plain import to_plain, write_atomically


@dataclass(frozen=True, eq=False)
class ExplorerPage:
    """A page on which any class of a picture is asked against any other; a notebook shows it in a frame."""

    content: Content
    height: int = 900
    """Of the frame in a notebook, in pixels."""
    live: Mapping[str, Any] | None = None
    """What the page is told of the server behind it; None of a page without one."""

    @property
    def policy(self) -> str:
        """What the page may load and run: its own style and script, and the server that it came from, if it has one."""
        return policy(is_live=self.live is not None)

    @functools.cached_property
    def html(self) -> str:
        """The whole page."""
        told = self.content.plain() if self.live is None else {**self.content.plain(), "live": self.live}
        first, *others = [
            picture_element(index, as_data(to_plain(one.plain()))) for index, one in enumerate(self.content.pictures)
        ] or [""]
        return explorer_html(
            title=html.escape(self.content.title),
            content=as_data(to_plain(told)),
            is_live=self.live is not None,
            first=first,
            others="\n".join(others),  # behind the script, which shows the first one while these are read
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, whole or not at all.

        Raises:
            ArgumentError: the file's name does not end in .html.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ArgumentError(f"`path` {str(path)!r} must end in .html: it is a page.")
        write_atomically(path, self.html.encode())
        return path

    def __repr__(self) -> str:
        num, models = len(self.content.pictures), ", ".join(model.name for model in self.content.models)
        return f"ExplorerPage({num} picture{'s' if num > 1 else ''}; {models})"

    def _repr_html_(self) -> str:
        """The page in a frame of its own, which may run its script and offer files, and do nothing else."""
        return (
            f'<iframe title="{html.escape(self.content.title)}" sandbox="allow-scripts allow-downloads" '
            f'allow="clipboard-write" srcdoc="{html.escape(self.html)}" width="100%" height="{self.height}" '
            'style="border:0"></iframe>'
        )
