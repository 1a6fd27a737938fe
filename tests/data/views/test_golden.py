"""Batches and evaluation views have the bytes that they had when these digests were taken (commit 0cb7cf0)."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.data import image_set
from contrex.data.loading import TrainingLoader
from contrex.data.views.batch import Batch
from contrex.data.views.evaluation import EvaluationViews
from contrex.data.views.photometric import random_look, recoloured
from contrex.data.views.training import TrainingViews
from contrex.data.views.unlabelled import Cycle
from contrex.methods.gcc import composites_of
from contrex.ops.geometry import random_crop, warp_images
from contrex.settings import Augmentation, Digits, Folder
from sampling import crossed

DIGITS = Digits(num_train=24, num_val=2, num_test=4, image_size=32, digit_size=(14, 18), num_clutter=2)
COLOURS = {"color_jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.3}


@pytest.fixture(scope="module")
def digits():
    return image_set(DIGITS, "train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """PNG photos of noise in three classes, with boxes, a trimap and one that lies on its side."""
    root, random, rows = tmp_path_factory.mktemp("golden"), np.random.default_rng(0), []
    (root / "trimaps").mkdir()
    for number in range(9):
        path, size = f"train/{'abc'[number % 3]}/{number}.png", (40 + number, 50 - number)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[274] = 6 if number == 4 else 1
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / path, exif=exif)
        rows += [f"{path},{number},2,{number + 20},30", f"{path},1,1,9,{9 + number}"]
        if number % 2:
            Image.fromarray(random.integers(1, 4, size, dtype=np.uint8)).save(root / f"trimaps/{number}.png")
    (root / "boxes.csv").write_text("\n".join(["path,xmin,ymin,xmax,ymax", *rows]))
    return image_set(Folder(root, image_size=32, resize=36, trimaps=Path("trimaps")), "train")


def views(images, *, where="loader", num_views=1, composite=False, seed=3, **colours) -> TrainingViews:
    augmentation = Augmentation(scale=(0.3, 1.0), where="worker" if where == "loader" else where, **colours)
    return TrainingViews(
        images, resize=36, size=32, augmentation=augmentation, seed=seed, num_views=num_views, composite=composite
    )


def batches(source: TrainingViews, cycle: Cycle | None = None) -> list[Batch]:
    loader = TrainingLoader([source], batch_size=4, cycle=cycle)
    return [batch for epoch in (0, 1) for batch in loader.batches(epoch, step=2 * epoch)][:3]


def parts(batch: Batch | None) -> Iterator[object]:
    """All that a batch holds, in the order in which it was first digested."""
    if batch is None:
        return
    first, *more = batch.views
    yield from (batch.images, first.pixels, *crop_parts(first.crop), batch.labels, *batch.paths)
    yield from look_parts(first.look)
    for view in more:
        yield from (view.pixels, *crop_parts(view.crop), *look_parts(view.look))
    yield batch.indices
    if (company := batch.company) is not None and batch.images.dtype == torch.uint8:
        made = company.view.pixels is not None
        yield from (company.view.pixels, company.cells) if made else (company.images, *look_parts(company.view.look))
        yield from () if made else (company.cells, *crop_parts(company.view.crop))
    yield composites_of(batch)[0] if company is not None and batch.images.dtype == torch.float32 else None
    yield from parts(batch.unlabelled)


def crop_parts(crop) -> Iterable[object]:
    return crop.top, crop.left, crop.height, crop.width, crop.flip


def look_parts(look) -> Iterable[object]:
    return () if look is None else (look.factors, look.order, look.grey)


def digest(found: Iterable[object]) -> str:
    sha = hashlib.sha256()
    for part in found:
        values = part.numpy(force=True) if isinstance(part, torch.Tensor) else part
        if isinstance(values, np.ndarray):
            sha.update(f"{values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
        else:
            sha.update(repr(values).encode())
    return sha.hexdigest()[:16]


def training_digest(source: TrainingViews, cycle: Cycle | None = None) -> tuple[str, str]:
    """Of the batches as the loader gives them, and as they are on the device."""
    found = batches(source, cycle)
    moved = [batch.to(torch.device("cpu")) for batch in found]
    return digest(part for batch in found for part in parts(batch)), digest(part for b in moved for part in parts(b))


CASES = {
    "plain": {},
    "colours": COLOURS,
    "extra": {"num_views": 3, **COLOURS},
    "composite": {"composite": True, "num_views": 2, **COLOURS},
}

GOLDEN = {
    "plain digits loader": ("78440e96772a0bf2", "0c1926cdbcd3316e"),
    "plain digits device": ("d7fbd4b88bb80cbf", "f1b01cb43106de3c"),
    "plain folder loader": ("5fbf457bf18ab47d", "4e0a96e315e4115b"),
    "plain folder device": ("ed163bc44ebfb8ef", "3450ace23c849d56"),
    "colours digits loader": ("4fbea2aa1ae1d103", "6ff67b8fea627133"),
    "colours digits device": ("809182d8e6902a45", "643672b3d69daa0c"),
    "colours folder loader": ("25c8231412a51356", "a2ab9cb629155645"),
    "colours folder device": ("f0b262969398e994", "73ff25f8dfe45b5c"),
    "extra digits loader": ("3f6125a3757920cc", "ac1197009f930f83"),
    "extra digits device": ("ded9a31667c998a8", "27f04c9335b4a17f"),
    "extra folder loader": ("0af98a4071dcc084", "6b1d603903e7099d"),
    "extra folder device": ("58f02faff344538e", "5a3cbf078c57a771"),
    "composite digits loader": ("e7b21370657f922d", "6676be4d9f80a236"),
    "composite digits device": ("ef6d7293ff46dccb", "fd4de1acac262b1d"),
    "composite folder loader": ("d457883b9f3b0061", "c4dbe871d4aee37e"),
    "composite folder device": ("b4df6f0c1b07ce1b", "558ba2a7241dd520"),
    "unlabelled loader": ("8aa49f3282119092", "9417e8f14b93cd18"),
    "unlabelled device": ("d5cfa532bc92a0fa", "1904c4422b089d3a"),
    "evaluation digits True None": "4010f618d17104bc",
    "evaluation digits True 48": "2c1bf38fb19f84a4",
    "evaluation digits False None": "0a5344055125dfed",
    "evaluation digits False 48": "5e99baebc1e1bc5f",
    "evaluation folder True None": "c62c95fd021867bb",
    "evaluation folder True 48": "c05387b144f540b6",
    "evaluation folder False None": "f00e9c52edd5462e",
    "evaluation folder False 48": "49ca933b934db69d",
}

ARITHMETIC = "96eec80ac7480ef3"
"""The digest of some pixels warped and recoloured by the machine on which the others were taken."""


@pytest.fixture(scope="module", autouse=True)
def _same_arithmetic() -> None:
    """Another processor may round floating-point pixels in another way: there nothing is compared."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    random = np.random.default_rng(0)
    crop = random_crop(2, 16, scale=(0.3, 1.0), ratio=(0.75, 4 / 3), flip=0.5, generator=random)
    look = random_look(2, strengths=(0.4, 0.4, 0.4, 0.1), probability=1, grayscale=0, generator=random)
    if digest([recoloured(warp_images(images, crop), look)]) != ARITHMETIC:
        pytest.skip("floating-point pixels are rounded in another way here than where the digests were taken")


@pytest.mark.parametrize(
    ("case", "kind", "where"), crossed(CASES, ["digits", "folder"], ["loader", "device"], one_in=2)
)
def test_training_batches(case, kind, where, request):
    found = training_digest(views(request.getfixturevalue(kind), where=where, **CASES[case]))
    assert found == GOLDEN[f"{case} {kind} {where}"]


@pytest.mark.parametrize("where", ["loader", "device"])
def test_batches_with_unlabelled_images(digits, folder, where):
    cycle = Cycle(views(folder, where=where, seed=5, num_views=2, **COLOURS), 3)
    assert training_digest(views(digits, where=where, **COLOURS), cycle) == GOLDEN[f"unlabelled {where}"]


def shown_parts(one) -> Iterator[object]:
    """All that an evaluation has of an image, and what it keeps of it."""
    yield from (one.index, one.square, None if one.whole is None else one.whole.pixels, one.label, one.path, one.also)
    if one.whole is not None:
        yield from (one.whole.boxes, one.whole.mask, one.whole.image_size)
    if one.picture is not None:
        yield from (one.picture.pixels, one.picture.boxes)


@pytest.mark.parametrize("whole_side", [None, 48])
@pytest.mark.parametrize("needs_whole", [True, False])
@pytest.mark.parametrize("kind", ["digits", "folder"])
def test_evaluation_views(kind, needs_whole, whole_side, request):
    images = request.getfixturevalue(kind)
    found = EvaluationViews(images, (36, 32), whole_side=whole_side, needs_whole=needs_whole, gallery=(1, 4))
    parts_of_all = (part for index in range(6) for part in shown_parts(found[index]))
    assert digest(parts_of_all) == GOLDEN[f"evaluation {kind} {needs_whole} {whole_side}"]
