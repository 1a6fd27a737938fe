"""Photos through Python; `test_cli.py` does the same as a person types it."""

import numpy as np
import pytest
import torch
from PIL import Image

import contrex
from contrex.errors import ArgumentError
from contrex.models import load_classifier
from contrex.photos import Asked, NamedClassifier, explain_photos, save_picture
from contrex.settings import Model


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
    shapes = [tuple(explain_photos([photo], named, Asked(), side=side)[0].image.shape) for side in (None, 30)]
    assert shapes == [(1, 3, 40, 60), (1, 3, 30, 45)]


@pytest.mark.parametrize("side", [0, -5])
def test_a_side_below_one_pixel_is_refused(named, photo, side):
    with pytest.raises(ArgumentError, match=f"`side` must be at least 1 pixel, got {side}"):
        explain_photos([photo], named, Asked(), side=side)


def test_the_picture_is_written_where_it_was_asked_for(named, photo, tmp_path):
    results = explain_photos([photo], named, Asked())
    save_picture(results, tmp_path / "new" / "why.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["why.png"]
    for name, message in (
        ("why", r"`output` .*why must end in a picture format, as in .*why.png"),
        ("a.xyz", "no pic"),
    ):
        with pytest.raises(ArgumentError, match=message):
            save_picture(results, tmp_path / "none" / name)


def test_every_explainer_class_and_contrast_has_its_panel(named, photo, tmp_path):
    asked = Asked(["grad_cam", "gradient"], top=2, contrasts=["none", "weighted"])
    results = explain_photos([photo, photo], named, asked)
    assert [result.explainer for result in results] == ["grad_cam", "gradient"] * 2
    first, second = (name for name, _ in results[0].top[:2])
    assert [panel.question for panel in results[0].panels] == [
        f"why {first}?",
        f"why {first} and not the others (weighted)?",
        f"why {second}?",
        f"why {second} and not the others (weighted)?",
    ]
    images = named.classifier.normalise(results[0].image)
    expected = contrex.Gradient(named.classifier.network)(images, target=None, contrast="weighted").heatmap[0]
    torch.testing.assert_close(results[1].panels[1].heatmap, expected)
    save_picture(results, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * sheet.height / 4


def test_classes_and_foils_by_name(named, photo):
    (result,) = explain_photos([photo], named, Asked(classes=["dog", "2"], contrasts=["cat"]))
    assert [panel.question for panel in result.panels] == ["why dog rather than cat?", "why fox rather than cat?"]


MY_CAM = """
from contrex import ActivationExplainer

class MyCAM(ActivationExplainer):
    def combine(self, activation, gradient):
        return (activation * gradient.clamp(min=0)).sum(1)
"""


def test_a_users_explainer_from_a_file(named, photo, tmp_path):
    (tmp_path / "mine.py").write_text(MY_CAM)
    name = f"{tmp_path / 'mine.py'}:MyCAM"
    (result,) = explain_photos([photo], named, Asked([name], contrasts=["none", "max"]))
    assert len(result.panels) == 2
    for wrong, message in (
        (f"{tmp_path / 'mine.py'}:YourCAM", "has nothing called 'YourCAM'"),
        (f"{tmp_path / 'yours.py'}:MyCAM", "cannot be loaded from .*yours.py"),
        ("no.such.module:MyCAM", "cannot be loaded from no.such.module"),
        ("grad_can", "Did you mean 'grad_cam'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            explain_photos([photo], named, Asked([wrong]))
