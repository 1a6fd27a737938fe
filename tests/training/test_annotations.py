"""Training and validation read pixels and labels: no box, no mask, no XML file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from archives import HEIGHT, WIDTH, cub, mask_picture
from contrex.data import ImageSet, image_set
from contrex.data.files import annotations, folders, masks
from contrex.settings import CUB200, GCC, CrossEntropy, Labelled
from contrex.training import train
from sampling import sampled

from .runs import quiet, tiny


@pytest.fixture
def birds(tmp_path: Path) -> CUB200:
    root = cub(tmp_path / "CUB_200_2011")
    for photo in root.glob("images/*/*.jpg"):
        mask_picture(root / "segmentations" / photo.parent.name / f"{photo.stem}.png", np.zeros((HEIGHT, WIDTH)))
    return CUB200(root, image_size=16, resize=18)


@sampled(one_in=2)
@pytest.mark.parametrize("few", [None, Labelled(per_class=1, rest="val")], ids=["all", "few"])
@pytest.mark.parametrize("method", [CrossEntropy(), GCC()], ids=["cross-entropy", "gcc"])
def test_training_asks_for_no_annotation(birds, method, few, tmp_path, monkeypatch):
    assert image_set(birds, "train")[0].mask is not None

    def refused(*_args, **_options):
        pytest.fail("an annotation was read")

    for kind in (ImageSet, folders.ImageFiles):
        monkeypatch.setattr(kind, "annotation", refused)
    for module, name in ((annotations, "read_objects"), (masks, "read_segmentation"), (folders, "read_header")):
        monkeypatch.setattr(module, name, refused)
    recipe = replace(tiny(epochs=1, batch_size=2), data=birds, method=method, labelled=few or Labelled())
    train(recipe, tmp_path / "run", console=quiet())
