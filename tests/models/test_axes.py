"""Axes that are followed through small tensor programs, against the same programs run on images of coordinates.

Every pixel holds its own row, or its column. Convolutions and linear layers take means, so what a program gives,
divided by what it gives for ones, is the mean row (column) of the pixels behind each entry: a map whose cells lie in
their places holds those of its cells.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from contrex.models.axes import FOREIGN, LOST, Axis, Factor, regroup
from contrex.models.axis_rules import RULES
from contrex.models.following import Followed
from contrex.models.graph import Graph, edge_of
from contrex.models.reading import reading


def conv(x, size=3, stride=1, padding=None, dilation=1):
    padding = size // 2 if padding is None else padding
    weight = torch.full((6, x.shape[1], size, size), 1 / (x.shape[1] * size * size), dtype=x.dtype)
    return F.conv2d(x, weight, None, stride, padding, dilation)


def linear(tokens, num=6):
    return F.linear(tokens, torch.full((num, tokens.shape[-1]), 1 / tokens.shape[-1], dtype=tokens.dtype))


def patches(x, side=4):
    return conv(x, side, side, 0)


def tokens(x, side=4):
    return patches(x, side).flatten(2).transpose(1, 2)


def prefix(x, num):
    return torch.zeros(len(x), num, x.shape[-1], dtype=x.dtype)


def beside_class_token(x, change):
    """Tokens whose cells were changed while the class token was kept aside, as TNT does."""
    both = torch.cat([prefix(tokens(x), 1), tokens(x)], 1)
    return torch.cat([both[:, :1], change(both[:, 1:])], 1)


def split_patches(x):
    n, c, h, w = x.shape
    return x.view(n, c, h // 4, 4, w // 4, 4)


def windows(x):
    """[N,2,h/2,2,w/2,C] of a grid [N,C,h,w]."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, 2, h // 2, 2, w // 2, c)


def attention(query, key, value):
    return F.scaled_dot_product_attention(0 * query[:, None], 0 * key[:, None], value[:, None])[:, 0]


RIGHT = {
    "convolution": lambda x: conv(x, 3, 2),
    "dilated": lambda x: conv(x, 3, 1, 2, 2),
    "without padding": lambda x: conv(x, 3, 1, 0),
    "max pooling": lambda x: F.max_pool2d(x, 2),
    "average pooling of a few": lambda x: F.adaptive_avg_pool2d(x, (4, 4)),
    "bilinear upsampling": lambda x: F.interpolate(patches(x), scale_factor=2, mode="bilinear"),
    "nearest upsampling by copies": lambda x: patches(x).repeat_interleave(2, 2).repeat_interleave(2, 3),
    "pixel shuffle": lambda x: F.pixel_shuffle(conv(x, 4, 4, 0)[:, :4], 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 4),
    "columns first": lambda x: patches(x.transpose(2, 3)),
    "channels last": lambda x: patches(x).permute(0, 2, 3, 1),
    "columns, channels, rows": lambda x: patches(x).permute(0, 3, 1, 2),
    "tokens": tokens,
    "tokens, columns first": lambda x: patches(x).transpose(2, 3).flatten(2).transpose(1, 2),
    "channels before tokens": lambda x: patches(x).flatten(2),
    "tokens of a linear layer": lambda x: linear(split_patches(x).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)),
    "unfolded": lambda x: F.unfold(x, 4, stride=4),
    "unfolded twice": lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3),
    "every other pixel": lambda x: x[:, :, 1::2, ::2],
    "focus": lambda x: torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),
    "windows in a row": lambda x: windows(patches(x)).transpose(2, 3).flatten(1, 2).flatten(1, 3),
    "windows put back": lambda x: windows(patches(x)).transpose(2, 3).transpose(2, 3).flatten(3, 4).flatten(1, 2),
    "class token in front": lambda x: torch.cat([prefix(tokens(x), 1), tokens(x)], 1),
    "registers behind": lambda x: torch.cat([tokens(x), prefix(tokens(x), 9)], 1),
    "registers taken off": lambda x: torch.cat([prefix(tokens(x), 5), tokens(x)], 1)[:, 5:],
    "class token split off": lambda x: torch.cat([prefix(tokens(x), 1), tokens(x)], 1).split([1, 24], 1)[1],
    "class token beside a sum of the others": lambda x: beside_class_token(x, lambda cells: cells + tokens(x)),
    "padded and taken off": lambda x: F.pad(patches(x), (2, 1, 0, 1))[:, :, :-1, 2:-1],
    "padding of a convolution": lambda x: conv(F.pad(patches(x), (1, 1, 1, 1)), 3, 1, 0),
    "a wide margin": lambda x: conv(F.pad(patches(x), (4, 3, 2, 5)), 1),
    "a margin of copies": lambda x: F.pad(patches(x), (1, 1, 2, 2), mode="replicate"),
    "a little is cut off": lambda x: conv(x[:, :, 1:-1, 1:-1], 2, 2, 0),
    "colours turned round": lambda x: patches(x.flip(1)[:, [0, 2, 1]]),
    "half of the channels": lambda x: patches(x).chunk(2, 1)[1],
    "stacked": lambda x: torch.stack([patches(x), patches(x)], 2).flatten(1, 2),
    "rows are averaged": lambda x: patches(x).mean(2),
    "one row, and its axis put back": lambda x: conv(patches(x).mean(2).unsqueeze(2), 1),
    "attention": lambda x: 0 * attention(tokens(x), tokens(x).flip(1), tokens(x)) + tokens(x),
    "the addend that is known": lambda x: torch.roll(patches(x), 1, 3) * 0 + patches(x),
    "what was cut beside what was not": lambda x: (
        F.pad(F.pad(patches(x), (-1, 0, -1, 0)), (1, 0, 1, 0)) * 0 + patches(x)
    ),
    "dropout, norms and a gate": lambda x: (
        F.dropout(patches(x), 0.0) * patches(x).mean((2, 3), keepdim=True).sigmoid() ** 0
    ),
}
GONE = {
    "flipped": lambda x: conv(x.flip(3)),
    "turned": lambda x: conv(x.rot90(1, (2, 3))),
    "rolled": lambda x: conv(torch.roll(patches(x), 2, 3)),
    "shuffled by an index": lambda x: patches(x)[..., [5, 2, 0, 1, 4, 3]],
    "shuffled by index_select": lambda x: conv(x.index_select(2, torch.arange(16).flip(0))),
    "shuffled by gather": lambda x: patches(x.gather(3, torch.arange(24).flip(0).expand(x.shape))),
    "shuffled tokens": lambda x: tokens(x)[:, torch.arange(24).flip(0)],
    "sorted": lambda x: conv(x.sort(3)[0]),
    "added up": lambda x: conv(x.cumsum(3)),
    "warped": lambda x: F.grid_sample(x, torch.zeros(1, 8, 8, 2, dtype=x.dtype), align_corners=False),
    "halves swapped": lambda x: conv(torch.cat(x.chunk(2, 3)[::-1], 3)),
    "the middle": lambda x: patches(x[:, :, 4:12, 6:18]),
    "the left half": lambda x: patches(x.narrow(3, 0, 12)),
    "the right half, split off": lambda x: patches(x.split(12, 3)[1]),
    "quarters as channels": lambda x: conv(torch.cat([x[:, :, :8, :12], x[:, :, 8:, 12:]], 1)),
    "coarse places as channels": lambda x: conv(split_patches(x).permute(0, 1, 2, 4, 3, 5).flatten(1, 3)),
    "one of the coarse places": lambda x: split_patches(x)[:, :, 1, :, 2],
    "windows as a grid": lambda x: conv(windows(patches(x)).permute(0, 5, 1, 3, 2, 4).reshape(1, 6, 4, 6)),
    "channels last, viewed as first": lambda x: conv(patches(x).permute(0, 2, 3, 1).reshape(1, 6, 4, 6)),
    "a layer over the cells": lambda x: conv(linear(patches(x).flatten(2), 24).view(1, 6, 4, 6)),
    "a layer over the columns": lambda x: conv(patches(x) @ torch.eye(6, dtype=x.dtype).flip(0)),
    "a vector as a grid": lambda x: conv(linear(x.flatten(1), 64).view(1, 4, 4, 4)),
    "a vector that is enlarged": lambda x: conv(F.interpolate(x.mean((2, 3), keepdim=True), size=(4, 4))),
    "a vector that is copied": lambda x: conv(x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)),
    "one cell that is enlarged": lambda x: F.interpolate(F.adaptive_avg_pool2d(x, 1), size=(4, 4)),
    "channels as rows": lambda x: conv(patches(x).permute(0, 2, 1, 3)),
    "cells against cells": lambda x: conv((tokens(x) @ tokens(x).transpose(1, 2))[:, None]),
    "channels against channels": lambda x: conv((tokens(x).transpose(1, 2) @ tokens(x))[:, None]),
    "what attends, the other way round": lambda x: (tokens(x) @ tokens(x).transpose(1, 2)).flip(2).transpose(1, 2),
    "class token and registers, without a cell": lambda x: torch.cat([prefix(tokens(x), 5), tokens(x)], 1)[:, :5],
    "half of the cells beside a class token": lambda x: beside_class_token(x, lambda cells: cells[:, 12:]),
    "two grids in a row": lambda x: torch.cat([tokens(x), tokens(x, 8)], 1),
    "a sum of two orders": lambda x: x[..., :16] + x[..., :16].transpose(2, 3),
    "images as channels": lambda x: conv(torch.stack([x[:, :, :, :12], x[:, :, :, 12:]]).flatten(0, 2)[None]),
}


def program_of(run, image):
    x = image.clone().requires_grad_()
    output = run(x)
    return Followed(Graph(output, x)), edge_of(output), output.detach()


def coordinates(size):
    """Two images: of rows, and of columns."""
    height, width = size
    rows = torch.arange(height, dtype=torch.float64)[:, None].expand(1, 3, height, width)
    columns = torch.arange(width, dtype=torch.float64).expand(1, 3, height, width)
    return rows.clone(), columns.clone()


def expected(num, size):
    """The middles of `num` cells of an axis of `size` pixels."""
    return (torch.arange(num, dtype=torch.float64) + 0.5) * size / num - 0.5


@pytest.mark.parametrize("name", RIGHT)
def test_cells_lie_where_the_coordinates_are(name):
    size = (16, 24)
    for image, across in zip(coordinates(size), (False, True), strict=True):
        followed, edge, output = program_of(RIGHT[name], image)
        found = reading(followed.axes(edge))
        _, _, of_ones = program_of(RIGHT[name], torch.ones_like(image))
        mean = found(output)[0].mean(0) / found(of_ones)[0].mean(0)
        assert tuple(mean.shape) == (found.height, found.width)
        along = mean.mean(0) if across else mean.mean(1)
        wanted = expected(found.width if across else found.height, size[across])
        assert ((along - wanted).abs() <= 1.001 * size[across] / len(along)).all(), (along, wanted)
        assert (along.diff() > -1e-9).all()
        assert not followed.is_presumed(edge)


def pyramid(x, num):
    for _ in range(num):
        x = conv(x, 2, 2, 0)
    return x


def enlarged(x, size):
    return F.interpolate(x, size, mode="bilinear")


CUT = {
    "resized and cropped": lambda x: enlarged(x, (64, 64))[:, :, 4:-4, 4:-4],
    "cropped more": lambda x: enlarged(x, (64, 64))[:, :, 8:-8, 8:-8],
    "cropped by a pad": lambda x: F.pad(enlarged(x, (64, 64)), (-4, -4, -4, -4)),
    "at one end": lambda x: enlarged(x, (128, 128))[:, :, :120, 8:],
    "twice": lambda x: enlarged(x, (64, 64))[:, :, 2:-2, 2:-2][:, :, 2:-2, 2:-2],
    "by a row": lambda x: enlarged(x, (65, 65))[:, :, :-1, 1:],
    "tokens": lambda x: enlarged(x, (64, 64))[:, :, 4:-4, 4:-4].flatten(2).unflatten(2, (56, 56)),
    "every other": lambda x: enlarged(x, (128, 128))[:, :, 8:-8, 8:-8][:, :, ::2, ::2],
    "unfolded": lambda x: conv(F.unfold(enlarged(x, (64, 64))[:, :, 4:-4, 4:-4], 1).unflatten(2, (56, 56))),
}


@pytest.mark.parametrize("num", [0, 1, 2, 3])
@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_off_moves_cells_by_no_more_than_half_a_cell(name, num):
    """Or by one, where that is less than a twenty-fourth of the image; else there is no reading."""
    size = (64, 64)
    rows, _ = coordinates(size)
    followed, edge, output = program_of(lambda x: pyramid(CUT[name](x), num), rows)
    _, _, of_ones = program_of(lambda x: pyramid(CUT[name](x), num), torch.ones_like(rows))
    along = (output[0].mean(0) / of_ones[0].mean(0)).mean(1)
    # A cell and the first (or last) end of its row: half a cell beyond the middle.
    cell = float(along.diff().mean())
    moved = max(float(along[0]) - cell / 2 + 0.5, 63.5 - float(along[-1]) - cell / 2) / 64
    found = reading(followed.axes(edge))
    assert (found is not None) == (moved * len(along) < (1.01 if moved < 1 / 24 else 0.51))


@pytest.mark.parametrize("name", GONE)
def test_what_is_in_no_place_has_no_reading(name):
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    followed, edge, _ = program_of(GONE[name], image)
    axes = followed.axes(edge)
    assert axes is not None
    assert not isinstance(axes, tuple) or reading(axes) is None


def test_weights_are_foreign_also_under_sums():
    queries = torch.zeros(1, 24, 6, dtype=torch.float64, requires_grad=True)
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    for run in (lambda x: queries + attention(queries, tokens(x), tokens(x)), lambda x: queries + x.mean()):
        followed, edge, _ = program_of(run, image)
        axes = followed.axes(edge)
        assert axes is FOREIGN or reading(axes) is None
        followed, edge, _ = program_of(lambda x, run=run: conv(run(x).transpose(1, 2).reshape(1, 6, 4, 6)), image)
        assert followed.axes(edge) in (FOREIGN, LOST)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Mirrored(Doubled):
    @staticmethod
    def forward(ctx, x):
        return x.flip(3)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(3)


class Secret(Doubled):
    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError


def test_functions_without_a_rule_are_asked_for_the_gradient_of_single_cells():
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    for run in (Doubled.apply, lambda x: conv(Doubled.apply(x)), lambda x: x.nan_to_num()):
        followed, edge, _ = program_of(run, image)
        assert reading(followed.axes(edge)).order == (1, 2, 3)
        assert not followed.is_presumed(edge)
    for run in (Mirrored.apply, lambda x: conv(torch.fft.fft2(x).abs()), lambda x: x.logcumsumexp(3)):
        followed, edge, _ = program_of(run, image)
        assert followed.axes(edge) is LOST


def test_what_does_not_tell_is_presumed():
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    for run in (Secret.apply, lambda x: conv(Secret.apply(x)), lambda x: conv(x.repeat(1, 1, 2, 2))):
        followed, edge, _ = program_of(run, image)
        assert isinstance(followed.axes(edge), tuple)
        assert followed.is_presumed(edge)
    followed, edge, _ = program_of(lambda x: Secret.apply(conv(x)) + conv(x), image)
    assert not followed.is_presumed(edge)


def test_changes_in_place_keep_cells_only_where_what_is_written_has_them():
    def written(index, value):
        def run(x):
            maps = conv(x)
            maps[index] = value(conv(x))
            return maps

        return run

    rows = (slice(None), slice(None), slice(0, 8))
    channels = (slice(None), slice(0, 3))
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    kept = [
        written(channels, lambda y: y[:, 3:]),
        written(channels, lambda y: y[:, :1] * 2),
        written(rows, lambda y: 0.5),
    ]
    for run in kept:
        followed, edge, _ = program_of(run, image)
        assert reading(followed.axes(edge)).order == (1, 2, 3)
    for run in (written(rows, lambda y: y[:, :, 8:]), written(channels, lambda y: y[:, 3:].flip(2))):
        followed, edge, _ = program_of(run, image)
        assert followed.axes(edge) is None


@pytest.mark.parametrize("name", ["Slice", "Permute", "Mean", "Cat", "Transpose", "Split"])
def test_what_torch_does_not_keep_is_unknown(name, monkeypatch):
    """Another torch may keep an argument of a function under another name."""

    def without(step):
        return step.node._saved_of_another_torch

    monkeypatch.setitem(RULES, name, without)
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    run = {
        "Slice": lambda x: x[:, :, ::2],
        "Permute": lambda x: x.permute(0, 2, 3, 1),
        "Mean": lambda x: x.mean(2),
        "Cat": lambda x: torch.cat([x, x], 1),
        "Transpose": lambda x: x.transpose(1, 2),
        "Split": lambda x: x.split(1, 1)[1],
    }[name]
    followed, edge, _ = program_of(run, image)
    assert followed.axes(edge) is None


def test_what_is_lost_stays_lost_through_norms_and_views():
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    ones = torch.ones(3, dtype=torch.float64)
    run = lambda x: F.batch_norm(x.flip(2), ones, ones).relu().permute(0, 2, 3, 1).flatten(1, 2)  # noqa: E731
    followed, edge, _ = program_of(run, image)
    assert followed.axes(edge) is LOST


def test_views_split_and_join_factors():
    axis = Axis((Factor("h", 12),))
    found = regroup((axis,), (2, 3, 2))
    assert [one.factors[0] for one in found] == [Factor("h", 2, 6, 12), Factor("h", 3, 2, 12), Factor("h", 2, 1, 12)]
    assert regroup(found, (12,))[0].factors == (Factor("h", 12, 1, 12),)
    assert regroup((axis,), (5, 2)) is None
    assert regroup((axis, Axis((Factor("w", 5),))), (10, 6)) is None
    assert regroup((Axis((Factor("h", 12),), before=1),), (13, 1)) == (Axis((Factor("h", 12),), before=1), Axis(()))
