"""Milliseconds of the loader for one training item, for data sets whose annotations cost time to read.

    PYTHONPATH=src python benchmarks/training_items.py

Photos of noise of 500 x 375 pixels, each read as a training item: one plain and one transformed view of 224 x 224. With
`--source PATH` the code of another checkout is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NUM, SIZE = 40, (500, 375)


def photo(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(file)


def smooth(random: np.random.Generator) -> np.ndarray:
    """Noise that JPEG files compress as they do photos."""
    small = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return np.array(small.resize(SIZE, Image.Resampling.BICUBIC))


def birds(root: Path, *, masks: bool) -> Any:
    """CUB-200-2011's layout, with or without its segmentations."""
    from contrex.settings import CUB200

    random, names = np.random.default_rng(0), [f"00{n % 2 + 1}.Bird/{n}" for n in range(1, NUM + 1)]
    for name in names:
        photo(root / f"images/{name}.jpg", smooth(random))
        if masks:
            photo(root / f"segmentations/{name}.png", smooth(random)[..., 0])
    tables = {
        "images": [f"{name}.jpg" for name in names],
        "image_class_labels": [name[2] for name in names],
        "train_test_split": ["1"] * NUM,
        "bounding_boxes": ["60.0 27.0 325.0 304.0"] * NUM,
    }
    for table, rows in tables.items():
        (root / f"{table}.txt").write_text("".join(f"{n} {row}\n" for n, row in enumerate(rows, start=1)))
    (root / "classes.txt").write_text("1 001.Bird\n2 002.Bird\n")
    return CUB200(root)


OBJECT = (
    "<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
    "<xmin>10</xmin><ymin>20</ymin><xmax>300</xmax><ymax>250</ymax></bndbox></object>"
)


def imagenet(root: Path, *, objects: int) -> Any:
    """ImageNet's layout, with an XML file per image."""
    from contrex.settings import ImageNet

    random = np.random.default_rng(0)
    for number in range(NUM):
        wnid = f"n0144076{number % 2}"
        photo(root / f"train/{wnid}/{wnid}_{number}.JPEG", smooth(random))
        file = root / f"Annotations/CLS-LOC/train/{wnid}/{wnid}_{number}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{OBJECT.format(name=wnid) * objects}</annotation>")
    return ImageNet(root)


def milliseconds(data: Any, rounds: int = 7) -> float:
    """Of one training item, the least of several rounds."""
    from contrex.data import image_set
    from contrex.data.views.training import TrainingViews
    from contrex.settings import Augmentation

    known = {"num_views": 1} if "num_views" in TrainingViews.__init__.__annotations__ else {"extra": 0}
    views = TrainingViews(image_set(data, "train"), resize=256, size=224, augmentation=Augmentation(), seed=0, **known)
    taken = []
    for epoch in range(rounds):
        start = time.process_time()
        for index in range(NUM):
            views[epoch, index]
        taken.append(1000 * (time.process_time() - start) / NUM)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", help="the src folder of another checkout")
    options = parser.parse_args()
    if options.source:
        sys.path.insert(0, options.source)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases = {
            "CUB, boxes": birds(root / "boxes", masks=False),
            "CUB, boxes and segmentations": birds(root / "masks", masks=True),
            "ImageNet, XML of 1 object": imagenet(root / "one", objects=1),
            "ImageNet, XML of 10 objects": imagenet(root / "ten", objects=10),
        }
        for name, data in cases.items():
            print(f"{name:30} {milliseconds(data):6.2f} ms")


if __name__ == "__main__":
    main()
