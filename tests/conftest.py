"""Shared fixtures: a seed before every test, and the optional research data beside the checkout.

torch is imported where it is needed: the process that hands out the tests to others needs none.
"""

from __future__ import annotations

import gc
import os
import shutil
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contrex.importing import uncollected
from sampling import mark_the_others_slow

ROOT = Path(__file__).resolve().parents[1]

LOOPBACK = {"localhost", "127.0.0.1", "::1", ""}

os.environ["CONTREX_NO_CACHE"] = "1"  # tests write nothing outside their folders


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what tests import, neither while it comes nor afterwards: it stays."""
    with uncollected():
        found = yield
    gc.freeze()
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before tests are chosen by their marks."""
    mark_the_others_slow(items)


@pytest.fixture(autouse=True, scope="session")
def _quick_torch() -> None:
    import torch

    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # the processes share the cores; more threads than cores make everything slower
    if not torch.accelerator.is_available():
        # torch's own also formats the stack for each kind of device that is not there, which takes two milliseconds.
        torch.manual_seed = torch.default_generator.manual_seed


@pytest.fixture(autouse=True, scope="session")
def _offline() -> Iterator[None]:
    """A test that asks for the address of another machine, or connects to one, fails."""
    asked, connected = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host, *args, **options):
        assert host is None or host in LOOPBACK, f"a test asks for the address of {host}"
        return asked(host, *args, **options)

    def connect(self, address):
        assert self.family == socket.AF_UNIX or address[0] in LOOPBACK, f"a test connects to {address}"
        return connected(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        patch.setattr(socket.socket, "connect", connect)
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - third-party code may draw from the global generator


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, without a window; the test is skipped where there is none, or no playwright."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with driver.sync_playwright() as play:
        found = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


def shared(*parts: str) -> Path:
    """A path below the research data (`CONTREX_SHARED`, default `../shared`); skips the test where it is absent."""
    path = Path(os.environ.get("CONTREX_SHARED", ROOT.parent / "shared")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"research data not present: {path.name} (set CONTREX_SHARED to the folder that holds it)")
    return path


@pytest.fixture
def golden():
    """Load one golden file: `golden("cgc_a")`."""
    return lambda name: np.load(shared("golden", f"{name}.npz"))
