"""What Sphinx is told; `build.py` says what it reads."""

import os
import sys
from pathlib import Path

SITE = Path(__file__).resolve().parent
sys.path.insert(0, str(SITE))
os.environ["CONTREX_NO_CACHE"] = "1"  # the gallery's examples write nothing outside the build

import pictures  # noqa: E402

import contrex  # noqa: E402

project, author = "contrex", "the contrex founders"
copyright = author  # noqa: A001 - Sphinx reads this name
version = release = contrex.__version__

extensions = [
    "sphinx.ext.autodoc",
    "docstrings",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["**/*.ipynb"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
highlight_language = "default"
suppress_warnings = ["config.cache"]  # the gallery's settings hold a function

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 90
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"contrex {release}"
html_static_path = ["static"]
html_css_files = ["contrex.css"]
QUIET = {"color-sidebar-link-text--top-level": "var(--color-foreground-secondary)", "code-font-size": "80%"}
html_theme_options = {
    "light_css_variables": {**QUIET, "color-brand-primary": "#a3241c", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {**QUIET, "color-brand-primary": "#ff8a80", "color-brand-content": "#8ab8f0"},
}
html_show_sphinx = False
html_show_copyright = False
html_copy_source = html_show_sourcelink = False
copybutton_prompt_text = ">>> "

sphinx_gallery_conf = {
    "examples_dirs": str(SITE.parent / "examples" / "gallery"),
    "gallery_dirs": "gallery",
    "image_scrapers": (pictures.of_last_line, "matplotlib"),
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"trained\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "write_computation_times": False,
    "show_memory": False,
    "nested_sections": False,
}
