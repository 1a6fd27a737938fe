"""Imports without the search for garbage, which goes on afterwards."""

import gc
import subprocess
import sys

import pytest

from contrex.importing import uncollected


def test_garbage_is_looked_for_again_afterwards():
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_only_a_process_of_a_command_freezes_its_objects_at_its_end():
    code = """
import atexit, gc
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 0))  # called last
from contrex.cli import main
main(%s)
"""
    for arguments, frozen in (("['recipes', 'cgc']", "False"), ("", "True")):
        command = [sys.executable, "-c", code % arguments, "recipes", "cgc"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.splitlines()[-1] == f"frozen {frozen}"
