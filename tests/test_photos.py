"""Photos through Python; `test_cli.py` does the same as a person types it."""

import numpy as np
import pytest
import torch
from PIL import Image

import contrex
from contrex.errors import ArgumentError
from contrex.explain.words import in_words
from contrex.models import load_classifier
from contrex.photos import Asked, NamedClassifier, explain_photos, found_photos, save_pictures
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


def asked(result):
    """The question of each map, explainer by explainer."""
    return [[in_words(why)[0].question for why in row] for row in result.rows]


def test_the_picture_is_written_where_it_was_asked_for(named, photo, tmp_path):
    results = explain_photos([photo], named, Asked())
    save_pictures(results, tmp_path / "new" / "why.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["why.png"]


def test_every_explainer_class_and_contrast_has_its_map(named, photo, tmp_path):
    questions = Asked(["grad_cam", "gradient"], top=2, contrasts=["none", "weighted"])
    results = explain_photos([photo, photo], named, questions)
    assert [list(result.explainers) for result in results] == [["grad_cam", "gradient"]] * 2
    first, second = (name for name, _ in results[0].top[:2])
    assert (
        asked(results[0])
        == [
            [
                f"why {first}?",
                f"why {first} and not the others (weighted)?",
                f"why {second}?",
                f"why {second} and not the others (weighted)?",
            ]
        ]
        * 2
    )
    images = named.classifier.normalise(results[0].image)
    expected = contrex.Gradient(named.classifier.network)(images, target=None, contrast="weighted").heatmap
    torch.testing.assert_close(results[0].rows[1][1].heatmap, expected)
    save_pictures(results[:1], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * sheet.height / 4


def test_classes_and_foils_by_name(named, photo):
    (result,) = explain_photos([photo], named, Asked(classes=["dog", "2"], contrasts=["cat"]))
    assert asked(result) == [["why dog rather than cat?", "why fox rather than cat?"]]


def test_photos_are_files_folders_and_wildcards(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "b/deep/0.webp", "b/notes.txt", "a.png", "c[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = found_photos([tmp_path / "b", tmp_path / "*.png", tmp_path / "a.png", tmp_path / "c[1].png"])
    names = ["b/1.JPG", "b/2.png", "b/deep/0.webp", "a.png", "c[1].png"]
    assert [str(path.relative_to(tmp_path)) for path in found] == names
    assert found_photos([tmp_path / "nowhere.png"]) == [tmp_path / "nowhere.png"]  # refused when it is read
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "*.gif"):
        with pytest.raises(ArgumentError, match=r"`photos` .* has no image in it: name an image, a folder"):
            found_photos([tmp_path / nothing])


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
    assert [len(row) for row in result.rows] == [2]
    for wrong, message in (
        (f"{tmp_path / 'mine.py'}:YourCAM", "has nothing called 'YourCAM'"),
        (f"{tmp_path / 'yours.py'}:MyCAM", "cannot be loaded from .*yours.py"),
        ("no.such.module:MyCAM", "cannot be loaded from no.such.module"),
        ("grad_can", "Near it: .*grad_cam"),
    ):
        with pytest.raises(ArgumentError, match=message):
            explain_photos([photo], named, Asked([wrong]))
