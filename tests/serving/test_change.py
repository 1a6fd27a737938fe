"""What a change makes of a photo: where its points go, and what is erased."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.errors import ArgumentError
from contrex.explain.explorer.content import VIEWS
from contrex.metrics.removal import baseline_image
from contrex.serving.change import MOST_POINTS, Change, Stroke


def noise(height=40, width=60):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def same(found, expected):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_no_change_is_the_photo_itself():
    assert Change().of(picture := noise()) is picture
    assert Change.read({}) == Change()


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_part_is_the_page_s_view_of_it(view):
    x, y = view.left + view.width / 2, view.top + view.height / 2
    same(Change(zoom=1 / view.width, x=x, y=y, flip=view.is_flipped).of(noise()), view.of(noise()))


def test_turning_is_clockwise_as_it_is_seen():
    square = noise(40, 40)
    turned = np.rot90(np.asarray(square), -1)
    same(Change(angle=90).of(square), turned)
    same(Change(angle=-90, flip=True).of(square), np.rot90(np.asarray(square)[:, ::-1]))


@pytest.mark.parametrize("flip", [False, True])
def test_a_point_goes_where_it_should(flip):
    """out = middle + R(angle) zoom mirror (in - centre), in pixels; R is clockwise where y goes down."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[30:35, 100:105] = 255  # around (102.5, 32.5)
    change = Change(zoom=1.5, x=0.55, y=0.4, angle=25, flip=flip)
    away = [(102.5 - 0.55 * 160) * 1.5 * (-1 if flip else 1), (32.5 - 0.4 * 120) * 1.5]
    turn = math.radians(25)
    expected = (
        80 + math.cos(turn) * away[0] - math.sin(turn) * away[1],
        60 + math.sin(turn) * away[0] + math.cos(turn) * away[1],
    )
    seen = np.asarray(change.of(Image.fromarray(pixels)))[..., 0].astype(float)
    seen[seen < 20] = 0
    ys, xs = np.mgrid[:120, :160] + 0.5
    assert ((xs * seen).sum() / seen.sum(), (ys * seen).sum() / seen.sum()) == pytest.approx(expected, abs=0.3)


def test_outside_is_the_mean_colour():
    picture = noise()
    mean = np.asarray(picture).mean((0, 1)).round()
    seen = np.asarray(Change(zoom=0.5).of(picture))
    assert (seen[:9] == mean).all()
    assert (seen[:, :14] == mean).all()
    assert np.abs(seen[11:29, 16:44] - mean).mean() > 10
    assert (np.asarray(Change(x=0.0, y=1.0, zoom=0.5, angle=45).of(picture))[-3:, :3] == mean).all()


@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_erased_pixels_become_what_the_metrics_make_of_removed_ones(fill):
    picture = noise(224, 300)
    seen = np.asarray(Change([Stroke([(0.3, 0.5), (0.7, 0.5)], 0.2)], fill).of(picture))
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    name = {"blur": "reflected_blur", "mean": "mean"}[fill]
    under = baseline_image(image, name)[0].permute(1, 2, 0).expand(224, 300, 3).numpy()
    assert np.abs(seen[80:140, 100:200] - under[80:140, 100:200]).max() <= 0.5
    outside = np.ones((224, 300), bool)
    outside[64:160, 40:260] = False
    assert (seen[outside] == np.asarray(picture)[outside]).all()


def test_strokes_stay_on_their_objects():
    """Erased first, then moved."""
    erased = Change([Stroke([(0.2, 0.3)], 0.2)])
    both = Change(erased.erased, zoom=2.0, x=0.3, y=0.4, flip=True)
    picture = noise()
    mean = np.asarray(Change(both.erased, "mean").of(picture))
    alone = Change(zoom=2.0, x=0.3, y=0.4, flip=True).of(Image.fromarray(mean))
    same(Change(both.erased, "mean", 2.0, 0.3, 0.4, flip=True).of(picture), alone)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], r"`change` must be an object with names and values, got \[\]"),
        ({"zoom": 100}, "`zoom` must be a number from 0.5 to 8, got 100"),
        ({"zoom": float("nan")}, "`zoom` must be a number from 0.5 to 8, got nan"),
        ({"x": "1"}, "`x` must be a number from 0 to 1, got '1'"),
        ({"y": True}, "`y` must be a number from 0 to 1, got True"),
        ({"angle": 181}, "`angle` must be a number from -180 to 180, got 181"),
        ({"flip": 1}, "`flip` must be true or false, got 1"),
        ({"fill": "road"}, "`fill` must be one of blur, mean; got 'road'"),
        ({"fill": ["blur"]}, "`fill` must be one of blur, mean; got"),
        ({"erased": "all"}, "`erased` must be a list, got 'all'"),
        ({"erased": [1]}, "`erased` must be an object with names and values, got 1"),
        ({"erased": [{"points": [[0.5, 0.5]]}]}, "`radius` must be a number from 0.001 to 0.5, got None"),
        ({"erased": [{"points": [[0.5]], "radius": 0.1}]}, r"`points` are pairs of x and y, got \[0.5\]"),
        ({"erased": [{"points": [[0.5, 2]], "radius": 0.1}]}, "`y` must be a number from 0 to 1, got 2"),
        (
            {"erased": [{"points": [[0.5, 0.5]] * (MOST_POINTS + 1), "radius": 0.1}]},
            f"`erased` has {MOST_POINTS + 1} points, and {MOST_POINTS} at most are drawn: undo some strokes",
        ),
    ],
)
def test_a_bad_change_is_refused(plain, message):
    with pytest.raises(ArgumentError, match=message):
        Change.read(plain)
