"""What the gallery shows of a block: the picture that a notebook would show of its last line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst


def of_last_line(block: tuple[Any, ...], found: dict[str, Any], settings: dict[str, Any]) -> str:
    """Write the picture of a block's last value to the next file, and return what the page says about it."""
    last = found["example_globals"].get("___")  # sphinx-gallery's name for it, which blocks without a value leave there
    is_new = last is not found.get("shown")
    content = last._repr_png_() if is_new and hasattr(last, "_repr_png_") else None
    if content is None:
        return ""
    found["shown"] = last
    path = Path(next(found["image_path_iterator"]))
    path.write_bytes(content)
    return figure_rst([str(path)], settings["src_dir"])
