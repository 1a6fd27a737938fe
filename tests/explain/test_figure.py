"""Pictures of any number of channels and any shape, or a reason why not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from contrex.errors import ArgumentError
from contrex.explain import Explanation
from contrex.explain.figure import LARGEST_SIDE, Panel, Row, draw, pictures
from contrex.ops.colour import map_rgb, overlaid_rgb
from sampling import crossed


def explanation(num=1, size=(4, 4)):
    heatmap = torch.randn(num, *size, generator=torch.Generator().manual_seed(0))
    return Explanation(heatmap, torch.zeros(num, 3), torch.zeros(num, dtype=torch.long))


def saved(figure) -> int:
    """The bytes of the figure as a file; what matplotlib cannot draw raises here."""
    file = io.BytesIO()
    figure.savefig(file, dpi=60)
    return len(file.getvalue())


@pytest.mark.parametrize(
    "channels_of", crossed([(1, None), (3, None), (2, (1,)), (4, (0, 1, 2)), (12, (3, 2, 1))], one_in=2)
)
def test_one_channel_is_grey_and_three_are_colours(channels_of):
    num_channels, channels = channels_of
    images = torch.rand(1, num_channels, 8, 8)
    shown = pictures(images, channels=channels)
    assert shown.shape == (1, 8, 8, 3)
    wanted = images[:, list(channels or range(num_channels))].expand(-1, 3, -1, -1)
    np.testing.assert_allclose(shown, wanted.permute(0, 2, 3, 1).numpy())
    assert saved(explanation().show(images, channels=channels)) > 0


@pytest.mark.parametrize(
    ("num_channels", "channels", "got"),
    [
        (2, None, "None"),
        (4, None, "None"),
        (12, None, "None"),
        (4, (0, 1), r"\[0, 1\]"),
        (4, (0, 1, 4), r"\[0, 1, 4\]"),
    ],
)
def test_other_channels_are_never_transparency(num_channels, channels, got):
    message = rf"`images` have {num_channels} channels, .* one or three of them; got `channels` {got}: name them"
    with pytest.raises(ArgumentError, match=message):
        explanation().show(torch.rand(1, num_channels, 8, 8), channels=channels)


def test_normalisation_is_that_of_all_channels():
    images = torch.rand(1, 4, 8, 8)
    mean, std = (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)
    normalised = (images - torch.tensor(mean).view(4, 1, 1)) / torch.tensor(std).view(4, 1, 1)
    shown = pictures(normalised, mean, std, channels=(3, 1, 0))
    np.testing.assert_allclose(shown, images[:, [3, 1, 0]].permute(0, 2, 3, 1).numpy(), atol=1e-6)
    with pytest.raises(ArgumentError, match="`mean` must be one number, or one for each of the 4 channels; got 3"):
        pictures(normalised, mean[:3], std, channels=(0, 1, 2))


def test_bytes_are_pictures():
    assert pictures(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3))[
        0, 0, :, 0
    ].tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize("size", crossed([(60, 1), (1, 60), (500, 3), (1, 1), (3, 4)], one_in=2))
def test_figures_of_any_shape_are_moderate(size):
    figure = explanation().show(torch.rand(1, 3, *size))
    assert 1 < figure.get_figheight() <= 15
    assert saved(figure) > 0
    image = figure.axes[0]
    assert image.get_aspect() == pytest.approx(min(max(size[0] / size[1], 0.25), 4) * size[1] / size[0])


def test_huge_pictures_are_shrunk():
    images = torch.rand(1, 1, 1, 1).expand(1, 3, 3000, 1500)
    shown = pictures(images)
    assert shown.shape == (1, LARGEST_SIDE, LARGEST_SIDE // 2, 3)
    np.testing.assert_allclose(shown, float(images[0, 0, 0, 0]), rtol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pixels_and_maps_that_are_not_finite_are_refused(value):
    images = torch.rand(1, 3, 8, 8)
    images[0, 1, 2, 3] = value
    with pytest.raises(ArgumentError, match="`images` must be finite to be drawn"):
        explanation().show(images)
    with pytest.raises(ArgumentError, match="`heatmap` must be finite to be drawn"):
        draw([Row(np.zeros((8, 8, 3), np.float32), [Panel(torch.full((2, 2), value))])])


def test_images_may_have_another_size_but_not_another_number():
    assert saved(explanation(2).show(torch.rand(2, 3, 30, 20))) > 0
    for images in (torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8), torch.rand(2, 3, 0, 8), [1, 2]):
        with pytest.raises(ArgumentError, match=r"`images` must be \[2,C,H,W\], one per map; got"):
            explanation(2).show(images)


def test_more_pictures_than_fit_into_a_file_are_refused():
    with pytest.raises(ArgumentError, match=r"120 pictures make a figure of 480 inches.*: draw at most 100 at a time"):
        explanation(120).show(torch.rand(120, 3, 8, 8))


def test_a_figure_has_the_colours_of_a_report():
    """One colour language: the strongest cell for a class is as red in a figure as on a report's page, and so on."""
    images = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    heatmap = torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]])
    figure = Explanation(heatmap, torch.zeros(1, 2), torch.zeros(1).long(), unit="share of the logit").show(images)
    axis = next(axis for axis in figure.axes if "red for, blue against" in axis.get_title())
    expected = overlaid_rgb(images[0].permute(1, 2, 0).numpy(), heatmap[0].numpy(), 2.0)
    np.testing.assert_allclose(axis.images[-1].get_array().astype(int), expected.astype(int), atol=3)
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "share of the logit"
    values = np.linspace(-2, 2, 256)[None]
    drawn = bar._colorbar.cmap(np.linspace(0, 1, 256)[None], bytes=True)[..., :3]
    np.testing.assert_allclose(drawn.astype(int), map_rgb(values, 2.0).astype(int), atol=3)
