"""The explorer's page as one HTML file that needs nothing else, and lets nothing else in.

The script is written in modules, which are joined here; style and script are allowed by their hashes, and all that
comes from outside - names of classes and files - is data in JSON, which the script puts into the page as text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from contrex.errors import ArgumentError
from contrex.explain.explorer.content import Content
from contrex.records.plain import to_plain, write_atomically

MODULES = ("numbers", "maps", "question", "drawing", "elements", "classes", "panels", "keeping", "main")
"""The files of the script, each behind those that it imports."""

LIVE_MODULES = ("server", "changes", "brush", "beforehand", "live")
"""More files of the script of a page with a server, behind the others."""


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
        style, script = (_hash(part) for part in _parts(is_live=self.live is not None))
        server = "" if self.live is None else "connect-src 'self'; "
        return (
            f"default-src 'none'; img-src data:; style-src {style}; script-src {script}; {server}"
            "base-uri 'none'; form-action 'none'"
        )

    @functools.cached_property
    def html(self) -> str:
        """The whole page."""
        style, script = _parts(is_live=self.live is not None)
        told = self.content.plain() if self.live is None else {**self.content.plain(), "live": self.live}
        first, *others = [
            f'<script type="application/json" id="photo-{index}">{_as_data(one.plain())}</script>'
            for index, one in enumerate(self.content.pictures)
        ] or [""]
        return _filled(
            _asset("explorer.html"),
            policy=self.policy,
            title=html.escape(self.content.title),
            style=style,
            live="" if self.live is None else _asset("live.html"),
            content=_as_data(told),
            script=script,
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


def _filled(template: str, **parts: str) -> str:
    """The template with its `{{name}}` replaced, once: a part that holds such a mark keeps it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template)


def _as_data(values: Mapping[str, Any]) -> str:
    """Values as JSON that cannot end the element it stands in, whatever classes are called."""
    text = json.dumps(to_plain(values), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


@functools.cache
def _parts(*, is_live: bool) -> tuple[str, str]:
    """The style and the script. The script's modules share one scope: their imports and exports name what is there."""
    colours = resources.files("contrex.ops").joinpath("colours.css").read_text(encoding="utf-8")
    style = colours + _asset("explorer.css") + (_asset("live.css") if is_live else "")
    joined = "".join(_asset(f"{name}.js") for name in (*MODULES, *(LIVE_MODULES if is_live else ())))
    joined = re.sub(r"^import [^;]*;\n", "", joined, flags=re.MULTILINE)
    joined = re.sub(r"^export ", "", joined, flags=re.MULTILINE)
    return style, f'"use strict";\n(() => {{\n{joined}}})();\n'


def _asset(name: str) -> str:
    return resources.files("contrex.explain.explorer").joinpath("assets", name).read_text(encoding="utf-8")
