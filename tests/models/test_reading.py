"""Outputs read as maps, from axes that are known and from what a model says of itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contrex.models.axes import FOREIGN, LOST, Axis, Factor, grid
from contrex.models.reading import possible_readings, reading, token_grids

IMAGES = (2, 3, 32, 64)
N, C = Axis((Factor("n", 2),)), Axis((Factor("c", 6),))
H, W = Factor("h", 4), Factor("w", 8)


def cells(num_channels=6, height=4, width=8):
    """Maps whose every entry tells its image, channel, row and column."""
    return torch.arange(2.0 * num_channels * height * width).view(2, num_channels, height, width)


WINDOWS = [
    Factor("h", 2, 2, 4),
    Factor("w", 2, 4, 8),
    Factor("h", 2, 1, 4),
    Factor("w", 4, 1, 8),
]
READ = {
    "channels first": (grid("nchw", (2, 6, 4, 8)), lambda m: m),
    "channels last": (grid("nhwc", (2, 4, 8, 6)), lambda m: m.permute(0, 2, 3, 1)),
    "columns first": (grid("ncwh", (2, 6, 8, 4)), lambda m: m.transpose(2, 3)),
    "channels in the middle": (grid("nhcw", (2, 4, 6, 8)), lambda m: m.transpose(1, 2)),
    "tokens": ((N, Axis((H, W)), C), lambda m: m.flatten(2).mT),
    "tokens, columns first": ((N, Axis((W, H)), C), lambda m: m.transpose(2, 3).flatten(2).mT),
    "tokens of windows": (
        (N, Axis(tuple(WINDOWS)), C),
        lambda m: m.unflatten(3, (2, 4)).unflatten(2, (2, 2)).transpose(3, 4).flatten(2).mT,
    ),
    "behind a class token": ((N, Axis((H, W), 1), C), lambda m: torch.cat([m[:, :, 0, :1], m.flatten(2)], 2).mT),
    "registers behind": ((N, Axis((H, W), 0, 3), C), lambda m: torch.cat([m.flatten(2), m[:, :, 0, :3]], 2).mT),
    "channels and tokens": ((N, C, Axis((H, W))), lambda m: m.flatten(2)),
    "a margin": (
        (N, C, Axis((H,), 1, 2), Axis((W,), 2, 1)),
        lambda m: nn.functional.pad(m, (2, 1, 1, 2)),
    ),
}
UNREADABLE = {
    "vectors": grid("nc", (2, 6)),
    "one cell": grid("nchw", (2, 6, 1, 1)),
    "two axes of channels": grid("ncch", (2, 6, 4, 8)),
    "time steps beside a grid": (N, C, Axis((H, W)), Axis((Factor("c", 5),))),
    "the finer rows alone": (N, C, Axis((Factor("h", 2, 1, 4),)), Axis((W,))),
    "rows with a gap": (N, C, Axis((Factor("h", 2, 4, 8), Factor("h", 2, 1, 8))), Axis((W,))),
    "windows as images": (Axis((Factor("n", 2), Factor("h", 2, 2, 4))), C, Axis((Factor("h", 2, 1, 4),)), Axis((W,))),
    "cut in front": (N, C, Axis((H,), -1), Axis((W,))),
    "cut behind": (N, C, Axis((H,)), Axis((W,), 0, -3)),
    "channels with more beside them": (N, Axis((Factor("c", 6),), 1), Axis((H,)), Axis((W,))),
}


@pytest.mark.parametrize("name", READ)
def test_every_cell_is_read_where_it_is(name):
    axes, made = READ[name]
    output = made(cells())
    assert tuple(axis.size for axis in axes) == tuple(output.shape)
    found = reading(axes)
    assert torch.equal(found(output), cells())
    assert (found.num_channels, found.height, found.width) == (6, 4, 8)
    assert found.has_prefix == (name in ("behind a class token", "a margin"))


def test_grids_of_any_size_are_read_like_the_known_one():
    larger = torch.arange(2.0 * 6 * 5 * 9).view(2, 6, 5, 9)
    for name in ("channels first", "channels last", "columns first", "channels in the middle"):
        axes, made = READ[name]
        found = reading(axes)
        assert found.is_plain_grid
        assert torch.equal(found.of_any_size(made(larger)), larger)
    assert not any(reading(READ[name][0]).is_plain_grid for name in ("tokens", "behind a class token", "a margin"))


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_grid_has_no_reading(name):
    assert reading(UNREADABLE[name]) is None


def read(known, shape, module=None, model=None):
    found = possible_readings(known, shape, IMAGES, module or nn.Identity(), model or nn.Identity())
    return [one.order for one in found]


def test_what_is_known_decides():
    shape = (2, 8, 16, 8)
    assert read(grid("nchw", shape), shape) == [(1, 2, 3)]
    assert read(grid("nhwc", shape), shape) == [(3, 1, 2)]
    assert read(LOST, shape) == read(FOREIGN, shape) == []
    assert read(grid("nchw", shape), (16, 8, 16, 8)) == []  # windows are no images


def test_without_a_graph_modules_and_proportions_tell():
    assert read(None, (2, 16, 4, 8)) == [(1, 2, 3)]
    assert read(None, (2, 4, 8, 16)) == [(1, 2, 3), (3, 1, 2)]  # 8 x 16 cells of 4 channels, or 4 x 8 of 16: refused
    assert read(None, (2, 4, 8, 17)) == [(1, 2, 3), (3, 1, 2)]
    assert read(None, (2, 4, 8, 60)) == [(3, 1, 2)]
    assert read(None, (2, 40, 8, 8)) == []
    for module in (nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.GroupNorm(2, 8)):
        assert read(None, (2, 4, 8, 60), module) == [(1, 2, 3)]


class Declaring(nn.Module):
    """As timm's transformers, or those of transformers."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class Things:
    def __init__(self, **attributes):
        self.__dict__ |= attributes


@pytest.mark.parametrize(
    ("model", "num", "starts"),
    [
        (Declaring(num_prefix_tokens=1, patch_embed=Things(grid_size=(4, 8))), 33, (1, 0)),
        (Declaring(num_prefix_tokens=5, patch_embed=Things(grid_size=(4, 8))), 37, (5, 0)),
        (
            Declaring(num_prefix_tokens=0, patch_embed=Things(grid_size=(1, 1), dynamic_feat_size=lambda s: (4, 8))),
            32,
            (0, 0),
        ),
        (Declaring(config=Things(patch_size=8)), 33, (1, 0)),
        (Declaring(config=Things(patch_size=8, num_register_tokens=4)), 37, (5, 0)),
    ],
)
def test_tokens_are_what_the_model_says(model, num, starts):
    (found,) = possible_readings(None, (2, num, 6), IMAGES, nn.Identity(), nn.Sequential(model))
    assert (found.height, found.width, found.starts) == (4, 8, starts)
    assert possible_readings(None, (2, num + 1, 7), IMAGES, nn.Identity(), nn.Identity()) == []


def test_tokens_that_fit_several_grids_are_all_named():
    assert token_grids(25, (32, 32)) == [(0, 5, 5), (9, 4, 4)]
    assert token_grids(33, (32, 64)) == [(1, 4, 8)]
    assert token_grids(1, (32, 32)) == token_grids(31, (32, 32)) == []
