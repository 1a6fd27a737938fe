"""The floors: imports only ever point down, and siblings do not meet."""

import ast
import subprocess
import sys
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


def files():
    return sorted(SOURCE.rglob("*.py"))


def part_of(path):
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imported_parts(path):
    """The parts of contrex that a file imports, at any depth of its code, outside `if TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            words = name.split(".")
            if words[0] == "contrex" and len(words) > 1 and words[1] in FLOORS:
                yield words[1]


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    part = part_of(path)
    if part == "__init__":
        return
    assert part in FLOORS, f"give {part} a floor in this test and in ARCHITECTURE.md"
    for other in set(imported_parts(path)) - {part}:
        assert FLOORS[other] <= FLOORS[part], f"{part} (floor {FLOORS[part]}) imports {other} (floor {FLOORS[other]})"
        if FLOORS[part] in BELOW_ONLY:
            assert FLOORS[other] < FLOORS[part], f"siblings meet: {part} imports {other}"


def test_no_module_without_a_subject():
    names = {path.stem for path in files()}
    assert not names & {"utils", "helpers", "common", "misc", "base"}


@pytest.mark.parametrize("light", ["cli", "recipes", "settings", "records", "report", "doctor"])
def test_parts_that_must_not_load_torch(light):
    """Help, recipes and reports answer at once, and a report needs no torch at all."""
    code = f"import contrex.{light}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_explainers_load_nothing_that_measuring_and_drawing_need():
    code = """
import contrex, contrex.explain, contrex.explain.figure, sys
heavy = {"sklearn", "torchmetrics", "matplotlib", "timm", "torchvision", "transformers", "captum"}
sys.exit(bool(heavy & set(sys.modules)))
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
    users = [path.name for path in files() if "register_forward" in path.read_text(encoding="utf-8")]
    assert users == ["capture.py"]


# --- limits ---------------------------------------------------------------------------------------------------------

MOST_COMPLEX, MOST_METHODS, MOST_FIELDS, MOST_PARAMETERS = 20, 12, 14, 8
AS_TORCH_HAS_THEM = {"_multi_head", "_batch_norm", "_batch_norm_bias"}
"""Functions with the parameters of a function of torch."""
BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.Assert, ast.match_case)


def complexity(function):
    """McCabe's: one, and one for each branch and each further operand of `and` and `or`."""
    operands = sum(len(node.values) - 1 for node in ast.walk(function) if isinstance(node, ast.BoolOp))
    return 1 + operands + sum(isinstance(node, BRANCHES) for node in ast.walk(function))


def number_of_parameters(function):
    its = function.args
    named = [one.arg for one in (*its.posonlyargs, *its.args, *its.kwonlyargs) if one.arg not in ("self", "cls")]
    return len(named) + bool(its.vararg) + bool(its.kwarg)


def number_of_fields(kind):
    fields = [one for one in kind.body if isinstance(one, ast.AnnAssign)]
    return sum("ClassVar" not in ast.unparse(one.annotation) for one in fields)


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_is_too_large(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert complexity(node) <= MOST_COMPLEX, node.name
            assert number_of_parameters(node) <= MOST_PARAMETERS or node.name in AS_TORCH_HAS_THEM, node.name
        elif isinstance(node, ast.ClassDef):
            assert sum(isinstance(one, ast.FunctionDef) for one in node.body) <= MOST_METHODS, node.name
            assert number_of_fields(node) <= MOST_FIELDS or part_of(path) == "settings", node.name
