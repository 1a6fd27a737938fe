"""The explorer's page as text: its template, style and script in one file that needs nothing else, and lets nothing in.

The script is written in modules, which are joined here; style and script are allowed by their hashes, and all that
comes from outside - names of classes and files - is data in JSON, which the script puts into the page as text. It
stands below the explainers, since a report shows the page too, and reports need no torch.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from importlib import resources
from typing import Any

VERSION = 1
"""Of what a page holds."""

MODULES = ("numbers", "maps", "question", "drawing", "elements", "classes", "panels", "keeping", "main")
"""The files of the script, each behind those that it imports."""

LIVE_MODULES = ("server", "changes", "brush", "beforehand", "live")
"""More files of the script of a page with a server, behind the others."""


def explorer_html(*, title: str, content: str, first: str, others: str = "", is_live: bool = False) -> str:
    """The whole page. `title` is escaped; `content` is JSON in the form of `as_data`, `first` and `others` are elements
    with the pictures, before and behind the script. A live one has a server behind it."""
    return _filled(
        _asset("explorer.html"),
        policy=policy(is_live=is_live),
        title=title,
        style=style_text(is_live=is_live),
        live=_asset("live.html") if is_live else "",
        content=content,
        script=script_text(is_live=is_live),
        first=first,
        others=others,
    )


def policy(*, is_live: bool = False) -> str:
    """What the page may load and run: its own style and script, and the server that it came from, if it has one."""
    server = "connect-src 'self'; " if is_live else ""
    return (
        f"default-src 'none'; img-src data:; style-src {allowed(style_text(is_live=is_live))}; "
        f"script-src {allowed(script_text(is_live=is_live))}; {server}base-uri 'none'; form-action 'none'"
    )


def picture_element(index: int, data: str) -> str:
    """The element that holds a picture of the page, as JSON in the form of `as_data`."""
    return f'<script type="application/json" id="photo-{index}">{data}</script>'


def as_data(plain: Any) -> str:
    """Plain values as JSON that cannot end the element it stands in, whatever classes are called.

    >>> as_data(["</script>", 1.5])
    '["\\\\u003c/script\\\\u003e",1.5]'
    """
    text = json.dumps(plain, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def allowed(text: str) -> str:
    """The source in a content security policy that allows this style or script alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def joined(texts: list[str]) -> str:
    """Modules of JavaScript in one scope: their imports and exports name what is there already."""
    text = re.sub(r"^import [^;]*;\n", "", "".join(texts), flags=re.MULTILINE)
    text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    return f'"use strict";\n(() => {{\n{text}}})();\n'


@functools.cache
def style_text(*, is_live: bool = False) -> str:
    """The style of the page."""
    colours = resources.files("contrex.ops").joinpath("colours.css").read_text(encoding="utf-8")
    return colours + _asset("explorer.css") + (_asset("live.css") if is_live else "")


@functools.cache
def script_text(*, is_live: bool = False) -> str:
    """The script of the page."""
    return joined([module_text(name) for name in (*MODULES, *(LIVE_MODULES if is_live else ()))])


def module_text(name: str) -> str:
    """One module of the page's script."""
    return _asset(f"{name}.js")


def _filled(template: str, **parts: str) -> str:
    """The template with its `{{name}}` replaced, once: a part that holds such a mark keeps it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template)


def _asset(name: str) -> str:
    # By its place: the package beside the files would load torch.
    assets = resources.files("contrex").joinpath("explain", "explorer", "assets")
    return assets.joinpath(name).read_text(encoding="utf-8")
