"""What the source imports is what pyproject.toml declares, and the other way round."""

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "contrex"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "open_clip": "open_clip_torch"}
"""Packages whose name on an index is not the one that is imported."""
ASKED_FOR = {"metrics/torchmetric_class.py", "serving/app.py", "serving/guard.py"}
"""Files that only `as_torchmetric` and `serving.server.Server` import, when they are called."""


def names(requirements):
    return {re.match(r"[A-Za-z0-9_.-]+", text)[0].lower() for text in requirements}


def imports(tree):
    """The packages that a file imports, and whether that happens as soon as the file is imported."""
    pending = [(tree, True)]
    while pending:
        node, is_at_once = pending.pop()
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in found:
            yield name.partition(".")[0], is_at_once
        is_later = isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        )
        below = (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))
        pending += [(child, is_at_once and not is_later) for child in below]


@functools.cache
def imported():
    """Which packages of others are imported at all, and which by files without being asked for."""
    every, at_once = set(), set()
    for path in SOURCE.rglob("*.py"):
        for name, is_at_once in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if name not in sys.stdlib_module_names and name != "contrex":
                every.add(DISTRIBUTIONS.get(name, name))
                if is_at_once and path.relative_to(SOURCE).as_posix() not in ASKED_FOR:
                    at_once.add(DISTRIBUTIONS.get(name, name))
    return every, at_once


def test_every_package_that_is_imported_is_declared():
    needed, extra = names(PROJECT["dependencies"]), set().union(*map(names, PROJECT["optional-dependencies"].values()))
    every, at_once = imported()
    assert every <= needed | extra
    assert at_once <= needed


def test_every_package_that_is_declared_is_imported():
    every, _ = imported()
    assert names(PROJECT["dependencies"]) <= every


def test_what_an_extra_has_tests_run_with():
    extras = PROJECT["optional-dependencies"]
    tested = extras["captum"] + extras["onnx"] + extras["torchmetrics"] + extras["serve"]
    assert names(tested) <= names(extras["dev"])
