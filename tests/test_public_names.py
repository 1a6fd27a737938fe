"""What users may rely on: the commands and the names of each package, a frozen list.

A name that is added, renamed or dropped changes public_names.txt, and needs a line in CHANGELOG.md; a renamed one keeps
an alias with a DeprecationWarning.
"""

import importlib
from pathlib import Path

import pytest

from contrex.cli import COMMANDS

FROZEN = {
    line.split(":")[0]: line.split(":")[1].split()
    for line in Path(__file__).with_name("public_names.txt").read_text().replace("\n    ", " ").splitlines()
}


def public_names(package):
    if package == "commands":
        return list(COMMANDS)
    module = importlib.import_module(package)
    return sorted(dir(module) if package == "contrex" else module.__all__)


@pytest.mark.parametrize("package", FROZEN)
def test_the_names_are_these(package):
    assert public_names(package) == FROZEN[package]
    if package != "commands":
        module = importlib.import_module(package)
        assert all(getattr(module, name) is not None for name in FROZEN[package])


def test_every_package_with_public_names_is_listed():
    source = Path(importlib.import_module("contrex").__file__).parent
    packages = [f"contrex.{file.parent.name}" for file in source.glob("*/__init__.py") if "__all__" in file.read_text()]
    assert sorted(["commands", "contrex", *packages]) == sorted(FROZEN)
