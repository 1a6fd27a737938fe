"""The page of architectures stays true: one network of every family, at its layer, or refused."""

import re

import pytest

from contrex.explain import EXPLAINERS
from explain import architectures, by_architecture


def documented() -> dict[tuple[str, int], tuple[str, str]]:
    """Layer and grid of each network and image side in the page; what is refused has "refused" for a layer."""
    page = architectures.DOCS.read_text("utf-8")
    rows = re.findall(r"^\| (\S+:\S+) \| (\d+) \|([^|]+)\|([^|]*)\|", page, re.MULTILINE)
    return {(name, int(side)): (layer.partition(":")[0].strip(), grid.strip()) for name, side, layer, grid in rows}


def test_the_page_has_every_network_and_nothing_that_is_wrong():
    assert {name for name, _ in documented()} == set(architectures.NAMES)
    assert "0 wrong" in architectures.DOCS.read_text("utf-8")


def test_the_page_has_every_explainer_on_ten_architectures():
    cells = by_architecture.documented()
    assert len({name for _, name in cells}) == 10
    assert {method for method, _ in cells} == set(EXPLAINERS)
    assert set(cells.values()) == set(by_architecture.CELLS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method", ["fem", *(pytest.param(name, marks=pytest.mark.slow) for name in ("refine_cam", "legrad"))]
)
def test_two_cells_of_the_table(method):
    for name in ("torchvision:resnet18", "timm:vit_tiny_patch16_224"):
        assert by_architecture.cell(method, name) == by_architecture.documented()[method, name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", architectures.NAMES)
def test_a_network_of_every_family_is_explained_right_or_refused(name):
    try:
        rows = architectures.rows_of(name)
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"not in this version of its library: {error}")
    for row in rows:
        assert row.is_right, row
        assert documented()[row.name, row.side] == (row.layer or "refused", row.grid)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_mambaout", "timm:test_resnet"])
def test_small_networks_of_three_kinds(name):
    rows = architectures.rows_of(name)
    assert all(row.is_right and row.layer for row in rows), rows
