"""Photos through Python; `test_cli.py` does the same as a person types it."""

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.errors import ArgumentError
from contrex.models import load_classifier
from contrex.photos import NamedClassifier, explain_photos, save_picture
from contrex.settings import Model

QUESTION = {"explainer": "grad_cam", "layer": None, "target": None, "contrast": None}


@pytest.fixture
def named():
    torch.manual_seed(0)
    return NamedClassifier(load_classifier(Model("contrex:convnet"), num_classes=3), ("cat", "dog", "fox"), 40)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_side_is_the_classifiers_or_the_one_asked_for(named, photo):
    shapes = [tuple(explain_photos([photo], named, side=side, **QUESTION)[0].image.shape) for side in (None, 30)]
    assert shapes == [(1, 3, 40, 60), (1, 3, 30, 45)]


@pytest.mark.parametrize("side", [0, -5])
def test_a_side_below_one_pixel_is_refused(named, photo, side):
    with pytest.raises(ArgumentError, match=f"`side` must be at least 1 pixel, got {side}"):
        explain_photos([photo], named, side=side, **QUESTION)


def test_the_picture_is_written_where_it_was_asked_for(named, photo, tmp_path):
    results = explain_photos([photo], named, side=None, **QUESTION)
    save_picture(results, tmp_path / "new" / "why.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["why.png"]
    for name, message in (
        ("why", r"`output` .*why must end in a picture format, as in .*why.png"),
        ("a.xyz", "no pic"),
    ):
        with pytest.raises(ArgumentError, match=message):
            save_picture(results, tmp_path / "none" / name)
