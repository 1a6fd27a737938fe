"""Colours and overlays."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from contrex.ops.colour import DIVERGING, diverging_rgb, overlaid_rgb
from contrex.report.colour import DARKEST, DASHES, POSITIVE, SERIES, SERIES_DARK, SIGNED, map_rgb
from contrex.report.gallery import gallery_page, heatmap_note
from contrex.report.groups import grouped
from contrex.report.pictures import disagreement, photo_uri, positive_uri, upsampled


def luminance(rgb: np.ndarray) -> np.ndarray:
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def decoded(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def test_zero_is_neutral_on_the_diverging_ramp() -> None:
    red, green, blue = diverging_rgb(np.zeros((1, 1)), 3.0)[0, 0]
    assert red == green == blue >= 240


def test_the_diverging_ramp_is_symmetric_around_zero() -> None:
    values = np.linspace(0, 2, 41)
    positive, negative = diverging_rgb(values[None], 2.0)[0], diverging_rgb(-values[None], 2.0)[0]
    assert np.abs(luminance(positive) - luminance(negative)).max() < 0.12
    assert (positive[1:, 0] > positive[1:, 2]).all()  # red above zero
    assert (negative[1:, 2] > negative[1:, 0]).all()  # blue below


def test_ramps_are_ordered_by_lightness() -> None:
    positive = luminance(map_rgb(np.linspace(0, 1, 101)[None], 1.0)[0])
    assert (np.diff(positive) < 0).all()
    diverging = luminance(diverging_rgb(np.linspace(-1, 1, 101)[None], 1.0)[0])
    assert (np.diff(diverging[:51]) > 0).all()
    assert (np.diff(diverging[50:]) < 0).all()


def test_scale_ends_are_the_ramp_s_ends() -> None:
    rgb = diverging_rgb(np.array([[-9.0, -2.0, 2.0, 9.0]]), 2.0)[0]
    ends = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in (DIVERGING[0], DIVERGING[-1])]
    assert rgb.tolist() == [ends[0], ends[0], ends[1], ends[1]]
    bars = map_rgb(np.array([[-9.0, -2.0, 0.0, 2.0, 9.0]]), 2.0)[0].tolist()
    ends = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in (SIGNED[0], POSITIVE[0], POSITIVE[-1])]
    assert bars == [ends[0], ends[0], ends[1], ends[2], ends[2]]


def test_a_page_multiplies_as_a_picture_is_made() -> None:
    """What the browser does - the grey of its filter, times the map - is what notebooks and files have."""
    picture = np.random.default_rng(0).random((5, 7, 3))
    values = np.linspace(-1.2, 1.2, 35).reshape(5, 7)
    light = DARKEST + (1 - DARKEST) * picture @ [0.299, 0.587, 0.114]
    in_browser = light[..., None] * map_rgb(values, 1.0)
    np.testing.assert_allclose(overlaid_rgb(picture, values, 1.0), in_browser, atol=0.51)


def test_for_and_against_are_told_apart_by_the_colour_blind() -> None:
    """Under each dichromacy (Vienot et al. 1999, in linear light) both ends differ by far in what is left of colour."""
    ends = map_rgb(np.array([[-1.0, 1.0]]), 1.0)[0] / 255
    linear = ends**2.2
    for blind in (
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    ):
        seen = np.clip(linear @ np.array(blind).T, 0, 1) ** (1 / 2.2)
        assert np.abs(seen[0] - seen[1]).max() > 0.3


@pytest.mark.parametrize(("colours", "background"), [(SERIES, (255, 255, 255)), (SERIES_DARK, (17, 22, 27))])
def test_lines_stand_out_from_the_page(colours: tuple[str, ...], background: tuple[int, int, int]) -> None:
    page = luminance(np.array(background))
    for colour in colours:
        line = luminance(np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]))
        assert (max(line, page) + 0.05) / (min(line, page) + 0.05) >= 3
    assert len(set(DASHES)) == len(DASHES) == len(colours)


def test_upsampling_is_bilinear_with_centres_at_halves() -> None:
    row = upsampled(np.array([[0.0, 1.0]]), 1, 8)[0]
    expected = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    np.testing.assert_allclose(row, expected, atol=1e-6)


def test_overlay_keeps_places_and_proportions() -> None:
    heatmap = np.zeros((4, 8), np.float32)
    heatmap[:, 6:] = 1
    picture = decoded(positive_uri(heatmap, 1.0, (200, 400)))
    assert picture.shape == (48, 96, 3)
    light = luminance(picture)
    assert light[:, 84:].max() < 0.2
    assert light[:, :60].min() > 0.9


def test_small_photographs_are_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(photo_uri(image)), image)
    assert decoded(photo_uri(np.zeros((400, 800, 3), np.uint8))).shape == (160, 320, 3)


def test_disagreement() -> None:
    left, right = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    left[0, 0], right[0, 3] = 1, 1
    assert disagreement(left, 5 * left - 0, (1, 4)) == pytest.approx(0)
    assert disagreement(left, right, (1, 4)) == pytest.approx(1)
    assert disagreement(left - right, left, (1, 4)) == pytest.approx(0)  # negative parts do not count
    assert disagreement(left, -left, (1, 4)) == disagreement(0 * left, left, (1, 4)) == 1  # nothing in common
    assert np.isnan(disagreement(0 * left, -left, (1, 4)))


def test_signed_maps_of_one_image_share_their_scale(make_run) -> None:
    first, second = make_run(), make_run("cgc")
    for index, end in enumerate([1.0, 9.0, 2.0, 3.0]):
        first.gallery.heatmaps[index][...] = np.linspace(-1, 1, 24).reshape(4, 6)
        second.gallery.heatmaps[index][...] = np.linspace(-end, 0.5, 24).reshape(4, 6)
    cards = gallery_page(grouped([first, second])).cards
    ends = [[panel.scales.signed_image for panel in card.panels] for card in cards]
    assert ends == [[1, 1], [9, 9], [2, 2], [3, 3]]
    assert [panel.scales.positive_own for panel in cards[1].panels] == [1, 0.5]
    assert {panel.scales.signed_all for card in cards for panel in card.panels} == {9}
    assert {panel.scales.positive_all for card in cards for panel in card.panels} == {1}
    # the same map has another colour on another scale, and only there
    heats = [card.panels[0].heats for card in cards]
    assert heats[0]["signed_image"] != heats[1]["signed_image"]
    assert heats[0]["signed_all"] == heats[1]["signed_all"]


def test_maps_that_say_nothing_are_noted() -> None:
    assert heatmap_note(np.zeros((2, 2), np.float32)) == "empty map"
    assert heatmap_note(-np.ones((2, 2), np.float32)) == "empty map"
    assert heatmap_note(np.array([[np.nan, 1]], np.float32)) == "not finite"
    assert heatmap_note(np.eye(2, dtype=np.float32)) == ""


def test_gain_is_the_second_run_minus_the_first(make_run) -> None:
    runs = [make_run(values=[40.0, None, 60.0, 70.0]), make_run("cgc", [45.0, 50.0, 50.0, 70.0])]
    gains = [card.gain for card in gallery_page(grouped(runs)).cards]
    assert gains[0] == 5
    assert np.isnan(gains[1])
    assert gains[2:] == [-10, 0]
