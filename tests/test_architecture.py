"""The floors: imports only ever point down, and siblings do not meet."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "contrex"
FLOORS = {
    "_version": 0,
    "errors": 1,
    "settings": 1,
    "devices": 1,
    "ranks": 1,
    "outside": 1,
    "importing": 1,
    "ops": 2,
    "models": 2,
    "records": 2,
    "explain": 3,
    "losses": 3,
    "metrics": 3,
    "data": 3,
    "report": 3,
    "methods": 4,
    "evaluation": 4,
    "asking": 4,
    "gamma_search": 4,
    "training": 5,
    "recipes": 6,
    "experiment": 6,
    "export": 6,
    "photos": 6,
    "doctor": 6,
    "data_overview": 6,
    "explanation_record": 7,
    "exploring": 7,
    "serving": 7,
    "verifying": 7,
    "reproduce": 7,
    "retrofit": 7,
    "cli": 8,
    "__main__": 9,
}
BELOW_ONLY = {3, 6}
"""Floors whose members may not import each other. `recipes` stays importable without torch."""


def part_of(path):
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))
PARTS = sorted({part_of(path) for path in FILES})


@cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported_parts(path):
    """The parts of contrex that a file imports, at any depth of its code, outside `if TYPE_CHECKING`."""
    for node in nodes(path):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            words = name.split(".")
            if words[0] == "contrex" and len(words) > 1 and words[1] in FLOORS:
                yield words[1]


@pytest.mark.parametrize("part", [part for part in PARTS if part != "__init__"])
def test_imports_point_down(part):
    assert part in FLOORS, f"give {part} a floor in this test and in ARCHITECTURE.md"
    for path in (path for path in FILES if part_of(path) == part):
        for other in sorted(set(imported_parts(path)) - {part}):
            where = f"{path} (floor {FLOORS[part]}) imports {other} (floor {FLOORS[other]})"
            assert FLOORS[other] <= FLOORS[part], where
            if FLOORS[part] in BELOW_ONLY:
                assert FLOORS[other] < FLOORS[part], f"siblings meet: {where}"


def test_no_module_without_a_subject():
    names = {path.stem for path in FILES}
    assert not names & {"utils", "helpers", "common", "misc", "base"}


def test_parts_that_must_not_load_torch():
    """Help, recipes and reports answer at once, and a report needs no torch at all."""
    code = """
import importlib, sys
for light in ("cli", "recipes", "settings", "records", "report", "doctor"):
    importlib.import_module(f"contrex.{light}")
    assert "torch" not in sys.modules, light
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


HEAVY = {"sklearn", "torchmetrics", "matplotlib", "timm", "torchvision", "transformers", "captum"}


def imported_at_once(tree):
    """The packages that are imported as soon as the file is."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif not isinstance(node, ast.FunctionDef | ast.If):
            yield from imported_at_once(node)


@pytest.mark.parametrize("part", ["errors", "settings", "devices", "ranks", "outside", "importing", "ops", "models",
                                  "explain", "losses"])  # fmt: skip
def test_no_file_of_the_explainers_imports_what_measuring_and_drawing_need(part):
    for path in (path for path in FILES if part_of(path) == part):
        assert HEAVY.isdisjoint(imported_at_once(ast.parse(path.read_text(encoding="utf-8")))), path


@pytest.mark.slow
def test_the_explainers_load_nothing_that_measuring_and_drawing_need():
    code = f"""
import contrex, contrex.explain, contrex.explain.figure, sys
sys.exit(bool({HEAVY} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_of_every_command_does_not_load_torch():
    code = """
import contextlib, io, sys
from contrex.cli import COMMANDS, main
for command in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([command, "--help"])
    assert "usage" in said.getvalue(), command
    assert "torch" not in sys.modules, command
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hooks_are_set_in_one_file():
    users = [path.name for path in FILES if "register_forward" in path.read_text(encoding="utf-8")]
    assert users == ["capture.py"]


# --- limits ---------------------------------------------------------------------------------------------------------

MOST_COMPLEX, MOST_METHODS, MOST_FIELDS, MOST_PARAMETERS = 20, 12, 14, 8
AS_TORCH_HAS_THEM = {"_multi_head", "_batch_norm", "_batch_norm_bias"}
"""Functions with the parameters of a function of torch."""
BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.Assert, ast.match_case)


def complexity(function):
    """McCabe's: one, and one for each branch and each further operand of `and` and `or`."""
    below = list(ast.walk(function))
    operands = sum(len(node.values) - 1 for node in below if isinstance(node, ast.BoolOp))
    return 1 + operands + sum(isinstance(node, BRANCHES) for node in below)


def number_of_parameters(function):
    its = function.args
    named = [one.arg for one in (*its.posonlyargs, *its.args, *its.kwonlyargs) if one.arg not in ("self", "cls")]
    return len(named) + bool(its.vararg) + bool(its.kwarg)


def number_of_fields(kind):
    fields = [one for one in kind.body if isinstance(one, ast.AnnAssign)]
    return sum("ClassVar" not in ast.unparse(one.annotation) for one in fields)


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_too_large(part):
    for path in (path for path in FILES if part_of(path) == part):
        for node in nodes(path):
            where = f"{path}: {getattr(node, 'name', None)}"
            if isinstance(node, ast.FunctionDef):
                assert complexity(node) <= MOST_COMPLEX, where
                assert number_of_parameters(node) <= MOST_PARAMETERS or node.name in AS_TORCH_HAS_THEM, where
            elif isinstance(node, ast.ClassDef):
                assert sum(isinstance(one, ast.FunctionDef) for one in node.body) <= MOST_METHODS, where
                assert part == "settings" or number_of_fields(node) <= MOST_FIELDS, where
