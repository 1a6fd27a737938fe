"""Build the site of the documentation, offline, into docs/_build: `make docs`, or `python docs/site/build.py`.

The pages of docs/ are made for reading on their own, with links to files of the repository. So they are first laid out
once more in docs/_build/source: links to pages lead to pages, those to other files into the repository, and beside
them come a page for each example, for each public package and the pages of the repository's top folder. Sphinx then
reads that folder; a file that says the same as before is left alone, so a second build is short.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import reference

SITE = Path(__file__).resolve().parent
DOCS = SITE.parent
ROOT = DOCS.parent
BUILD = DOCS / "_build"

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Homepage"]
TOP_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md")
"""Pages of the repository's top folder that the site has too."""
COPIED = {".png", ".ipynb", ".py"}
"""Endings of the files beside the pages that pages show or offer."""
NOT_HERE = {"_build", "site", "gallery", "__pycache__"}
"""Folders of docs/ that hold no pages."""

THEIRS = re.compile(r"^```(python|pycon) theirs\n", re.MULTILINE)
CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+://|#)([^)#\s]+)(#[^)\s]*)?\)")


def staged() -> dict[Path, Path]:
    """Where each file of the repository that the site has lies in it, without its folder."""
    files = {DOCS / "README.md": Path("index.md"), SITE / "index.md": Path("index.md")}
    for path in sorted(DOCS.rglob("*")):
        place = path.relative_to(DOCS)
        if path not in files and not NOT_HERE & set(place.parts):
            if path.suffix == ".md":
                files[path] = place.with_name("index.md") if place.name == "README.md" else place
            elif path.suffix in COPIED:
                files[path] = place
    files[DOCS / "examples" / "gallery" / "README.rst"] = Path("gallery/index.rst")  # sphinx-gallery makes it
    return files | {ROOT / name: Path(name) for name in TOP_PAGES}


def with_links(text: str, page: Path, files: dict[Path, Path]) -> str:
    """The text of a page whose links lead to pages of the site, or else into the repository."""
    here = files[page].parent

    def led(match: re.Match[str]) -> str:
        path = (page.parent / match[1]).resolve()
        if path.is_dir() and path / "README.md" in files:
            path /= "README.md"
        place = files.get(path)
        if place is None:
            kind = "tree" if path.is_dir() else "blob"
            return f"]({REPOSITORY}/{kind}/main/{path.relative_to(ROOT).as_posix()}{match[2] or ''})"
        if place.suffix == ".py" and place.parts[0] == "examples":
            place = place.with_suffix(".md")
        return f"]({os.path.relpath(place, here)}{match[2] or ''})"

    parts = CODE.split(text)
    return "".join(part if number % 2 else LINK.sub(led, part) for number, part in enumerate(parts))


def listed_below(text: str, place: Path) -> str:
    """What the first page of a folder needs besides its text: the list of the pages that it links to."""
    if place.name != "index.md" or place.parent == Path():
        return ""
    pages = dict.fromkeys(re.findall(r"\]\((\w+)\.md", text))
    return "\n```{toctree}\n:hidden:\n" + "\n".join(pages) + "\n```\n"


def example_page(path: Path) -> str:
    """The page of an example: what its docstring says, and the file."""
    title, _, rest = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem).partition("\n")
    commands = re.sub(r"^(contrex .*)", r"    \1", rest.strip("\n"), flags=re.MULTILINE)
    shown = f"```{{literalinclude}} {path.name}\n:language: python\n```"
    return f"# {title.rstrip('.')}\n\n{commands}\n\n{shown}\n"


def examples_page(examples: list[Path]) -> str:
    """The list of the examples."""
    listed = "\n".join(path.relative_to(DOCS / "examples").with_suffix("").as_posix() for path in examples)
    return (
        "# Examples in one file\n\nEach is whole: a class or a function of your own, used by name from its file.\n"
        f"[Notebooks]({REPOSITORY}/tree/main/examples) explain, contrast, train, measure and explore.\n\n"
        f"```{{toctree}}\n{listed}\n```\n"
    )


def contents() -> Iterator[tuple[Path, bytes]]:
    """Each file of the laid out source, with what it holds."""
    files = staged()
    for path, place in files.items():
        if path == DOCS / "README.md" or place.parts[0] == "gallery":
            continue  # the first page of the site has its place; the gallery is made later
        if path.suffix == ".md":
            text = with_links(path.read_text(encoding="utf-8"), path, files)
            text = THEIRS.sub(r"```{code-block} \1\n:class: theirs\n\n", text)
            yield place, (text + listed_below(text, place)).encode()
        else:
            yield place, path.read_bytes()
    examples = [path for path, place in files.items() if place.suffix == ".py" and place.parts[0] == "examples"]
    for path in examples:
        yield files[path].with_suffix(".md"), example_page(path).encode()
    yield Path("examples/index.md"), examples_page(examples).encode()
    for place, text in reference.pages():
        yield Path("api", place), text.encode()


def lay_out(source: Path) -> None:
    """Write the source, and remove what no longer belongs to it; the gallery's part is its own affair."""
    wanted = dict(contents())
    for place, content in wanted.items():
        path = source / place
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in source.rglob("*"):
        place = path.relative_to(source)
        if path.is_file() and place not in wanted and place.parts[0] != "gallery":
            path.unlink()


def write_explorer(page: Path) -> None:
    """Write the explorer's page that the first page shows, of the gallery's networks, by the command of a reader."""
    from contrex.cli import main as contrex

    sys.path.append(str(DOCS / "examples" / "gallery"))
    import trained

    runs = [str(trained.run_folder(name)) for name in ("digits_cross_entropy", "digits_cgc")]
    if contrex(["explore", *runs, str(trained.SEVEN_AND_THREE), "--output", str(page)]) != 0:
        raise RuntimeError(f"contrex explore has not written {page}")


def main(folder: Path = BUILD) -> int:
    """Lay the pages out in `folder` and build there; a warning is an error."""
    from sphinx.cmd.build import build_main

    lay_out(folder / "source")
    words = ["-W", "--keep-going", "-q", "-c", SITE, "-d", folder / "doctrees", folder / "source", folder / "html"]
    status = build_main(list(map(str, words)))
    if status == 0:
        write_explorer(folder / "html" / "explorer.html")
        print(f"site: {os.path.relpath(folder / 'html' / 'index.html')}")
    return status


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
