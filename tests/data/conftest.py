"""Archives that many tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archives import BUILDERS


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Every archive once, only read."""
    return {kind: build(tmp_path_factory.mktemp(kind.__name__) / "archive") for kind, build in BUILDERS.items()}
