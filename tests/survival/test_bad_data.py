"""One file in a hundred is damaged, of two thousand: with skip the run ends, and its counts are right."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from contrex.errors import ImageError
from contrex.settings import CrossEntropy, Folder, Model, Recipe, Training
from contrex.training import read_log, train
from training.runs import quiet

pytestmark = [pytest.mark.slow, pytest.mark.survival]

NUM_CLASSES, PER_CLASS, BATCH = 4, 500, 20


def damaged(content, number):
    """As real files are: cut off, empty, no image at all, with holes, larger than anything."""
    kinds = (
        content[: len(content) // 2],
        b"",
        b"<html>404 Not Found</html>",
        content[:20] + bytes(len(content) - 20),
        content[:2],
    )
    return kinds[number % len(kinds)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two thousand photos to train on, twenty of them damaged, and which ones."""
    root, rng, bad = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    chosen = set(rng.choice(NUM_CLASSES * PER_CLASS, NUM_CLASSES * PER_CLASS // 100, replace=False).tolist())
    for split, count in (("train", PER_CLASS), ("val", 5)):
        for label in range(NUM_CLASSES):
            (root / split / str(label)).mkdir(parents=True)
            for number in range(count):
                stream = io.BytesIO()
                Image.fromarray(rng.integers(0, 100 + 40 * label, (24, 24, 3), dtype=np.uint8)).save(stream, "jpeg")
                content, path = stream.getvalue(), root / split / str(label) / f"{number:03d}.jpg"
                if split == "train" and label * PER_CLASS + number in chosen:
                    content = damaged(content, len(bad))
                    bad.append(path)
                path.write_bytes(content)
    return root, bad


def recipe(root, **options):
    return Recipe(
        name="bad",
        data=Folder(root, image_size=24, resize=24, **options),
        model=Model("contrex:convnet", options={"widths": "(4,)", "strides": "(2,)", "pointwise": "8"}),
        method=CrossEntropy(),
        training=Training(epochs=2, batch_size=BATCH, device="cpu", workers=2),
    )


def test_one_in_a_hundred_is_left_out_and_listed(folder, tmp_path, tally):
    root, bad = folder
    with tally.counting("1 % of 2,000 files damaged, with skip") as outcomes:
        train(recipe(root, on_bad_image="skip"), tmp_path / "run", console=quiet())
        listed = json.loads((tmp_path / "run" / "skipped_images.json").read_text())[f"{root.name}/train"]
        outcomes.extend(any(f"'{path}'" in fault for fault in listed) for path in bad)
        assert len(listed) == len(bad) == 20
        steps = [line["step"] for line in read_log(tmp_path / "run") if "loss" in line]
        assert steps == list(range(1, 2 * (2000 - 20) // BATCH + 1))
    assert all(outcomes)


def test_the_default_stops_with_the_path(folder, tmp_path):
    root, bad = folder
    with pytest.raises(ImageError, match=r"cannot read image '.*jpg': .*leave such files out") as caught:
        train(recipe(root), tmp_path / "run", console=quiet())
    assert any(str(path) in str(caught.value) for path in bad)
