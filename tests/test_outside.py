"""Methods and recipes from a file or a module of one's own: written into records, read again, refused by name."""

import copy
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import contrex
from contrex.errors import ArgumentError, RecordError, UnknownNameError
from contrex.outside import find, installed, outside, outside_name
from contrex.recipes import recipe_from
from contrex.records import from_plain, to_plain
from contrex.settings import Recipe

FILE = """
from __future__ import annotations
from dataclasses import dataclass, replace
from typing import ClassVar
from contrex.recipes.digits import cross_entropy
from contrex.settings import Method

@dataclass(frozen=True)
class Mine(Method):
    implementation: ClassVar[str] = ":MineStep"
    weight: float = 2.0

def mine():
    return replace(cross_entropy(), method=Mine())

NOTHING = 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return "mine.py"


def test_a_recipe_from_a_file_goes_to_a_record_and_back(file):
    recipe = recipe_from(f"{file}:mine")
    plain = to_plain(recipe)
    assert plain["method"] == {"kind": "mine.py:Mine", "weight": 2.0}
    assert from_plain(plain, Recipe) == recipe
    assert type(recipe.method) is outside(str(Path(file).resolve()) + ":Mine", "it"), "one file, one class"
    assert outside_name(type(recipe.method)) == "mine.py:Mine"


def test_another_process_loads_the_file_for_itself(file):
    """As those of `--jobs` do, which share nothing with the command but what is pickled."""
    recipe = replace(recipe_from(f"{file}:mine"), name="there")
    code = "import pickle, sys; found = pickle.load(sys.stdin.buffer); print(found.name, found.method)"
    path = {**os.environ, "PYTHONPATH": str(Path(contrex.__file__).parents[1])}
    pickled = pickle.dumps(recipe)
    done = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True, env=path)
    assert done.stdout.decode().strip() == "there Mine(weight=2.0)"
    assert pickle.loads(pickle.dumps(recipe)) == copy.deepcopy(recipe) == recipe


def test_a_module_is_named_too():
    recipe = recipe_from("contrex.recipes.digits:cgc")
    assert to_plain(recipe)["method"]["kind"] == "CGC"


def test_what_is_not_there_is_said(file, tmp_path):
    plain = to_plain(recipe_from(f"{file}:mine"))
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")

    def of(kind, **more):
        return from_plain({**plain, "method": {**plain["method"], "kind": kind, **more}}, Recipe, where="recipe")

    with pytest.raises(ArgumentError, match=r"`?recipe.method.kind`? 'absent.py:Mine' cannot be loaded from absent.py"):
        of("absent.py:Mine")
    with pytest.raises(
        ArgumentError, match=r"'broken.py:Mine' cannot be loaded from broken.py: No module named 'nothing"
    ):
        of("broken.py:Mine")
    with pytest.raises(ArgumentError, match=r"'mine.py:Yours': mine.py has nothing called 'Yours'"):
        of("mine.py:Yours")
    with pytest.raises(
        RecordError, match=r"kind must be a class that derives from contrex.settings.Method, got 'mine.py:m"
    ):
        of("mine.py:mine")
    with pytest.raises(UnknownNameError, match=r"recipe.method must be one of weight; got 'implementation'"):
        of("mine.py:Mine", implementation="os:system")
    with pytest.raises(UnknownNameError, match=r"recipe.method.kind must be one of .*; got 'CGD'. Did you mean 'CGC'"):
        of("CGD")
    with pytest.raises(
        ArgumentError, match=r"the recipe 'mine.py:NOTHING' is no function that returns a contrex.settings"
    ):
        recipe_from("mine.py:NOTHING")
    with pytest.raises(ArgumentError, match=r"the recipe 'mine.py:ours': mine.py has nothing called 'ours'"):
        recipe_from("mine.py:ours")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that adds one number, as pip leaves it."""
    info = tmp_path / "numbers_of_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numbers-of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[contrex.numbers]\nseven = numbers_of_mine:SEVEN\ngone = numbers_of_mine:GONE\n"
    )
    (tmp_path / "numbers_of_mine.py").write_text("SEVEN = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed.cache_clear()
    yield
    installed.cache_clear()


def test_names_of_an_installed_package_are_found(package):
    own = {"one": 1, "seven": "contrex's own"}
    assert find("seven", "`number`", {"one": 1}, "numbers") == 7
    assert find("seven", "`number`", own, "numbers") == "contrex's own", "the house's own names stay what they are"
    assert find("numbers_of_mine:SEVEN", "`number`", own, "numbers") == 7
    with pytest.raises(UnknownNameError, match=r"`number`.*sevn.*seven"):
        find("sevn", "`number`", {"one": 1}, "numbers")
    with pytest.raises(
        ArgumentError, match=r"`number` 'numbers_of_mine:GONE': numbers_of_mine has nothing called 'GONE'"
    ):
        find("gone", "`number`", own, "numbers")
