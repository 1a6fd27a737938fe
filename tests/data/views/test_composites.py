"""Composites: what is drawn, where it lies, and that every draw is a function of seed, epoch and index."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contrex.data import image_set
from contrex.data.loading import TrainingLoader
from contrex.data.views.company import Company, OtherClasses
from contrex.data.views.composites import composites
from contrex.data.views.photometric import recoloured
from contrex.data.views.squares import pixels
from contrex.data.views.training import TrainingViews
from contrex.errors import ArgumentError
from contrex.methods.gcc import composites_of
from contrex.ops.geometry import warp_images
from contrex.settings import Augmentation, Digits
from oracles import gcc as oracle

CPU = torch.device("cpu")
DATA = Digits(num_train=16, num_val=2, num_test=2, image_size=32, digit_size=(14, 18), num_clutter=1)


@pytest.fixture(scope="module")
def images():
    return image_set(DATA, "train")


def views(images, *, where="device", seed=0, composite=True, **colours):
    augmentation = Augmentation(scale=(0.3, 1.0), where=where, **colours)
    return TrainingViews(images, resize=32, size=32, augmentation=augmentation, seed=seed, composite=composite)


def batch(source):
    return next(TrainingLoader([source], batch_size=8).batches(0))


# --- the grid -------------------------------------------------------------------------------------------------------


def test_composites_are_the_explicit_ones():
    own, partners, cells = torch.rand(5, 3, 2, 2), torch.rand(15, 3, 2, 2), torch.tensor([0, 1, 2, 3, 1])
    made = composites(own, partners, cells)
    for i, cell in enumerate(cells.tolist()):
        assert torch.equal(made[i], oracle.composite(own[i], partners[3 * i : 3 * i + 3], cell))
    with pytest.raises(ArgumentError, match=r"`partners` must be three images .*\[15, 3, 2, 2\]; got \[14, 3, 2, 2\]"):
        composites(own, partners[:14], cells)


# --- the draw -------------------------------------------------------------------------------------------------------


def test_partners_are_of_other_classes_each_equally_likely():
    """A class of one image is drawn as often as one of eight, and each of these equally often."""
    labels = np.array([2] * 8 + [0] + [5] * 4 + [-1] * 3)
    drawn = OtherClasses(labels).draw(5, 9000, np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=len(labels))
    assert counts.sum() == 9000
    assert (counts[9:] == 0).all()
    assert abs(counts[8] - 4500) < 250
    assert np.abs(counts[:8] - 562).max() < 110


def test_composites_need_two_classes():
    with pytest.raises(ArgumentError, match="at least two classes, `data` has 1: train GCC on more"):
        OtherClasses(np.array([3, 3, -1]))


def test_what_lies_beside_an_image(images):
    """Its own view in its cell, pixel by pixel, and views of three images of other classes."""
    found = batch(views(images))
    assert found.company.images.dtype == torch.uint8
    moved = found.to(CPU)
    made, cells = composites_of(moved)
    assert made.shape == (8, 3, 64, 64)
    assert moved.company.images is None
    for i, cell in enumerate(cells.tolist()):
        y, x = 32 * (cell // 2), 32 * (cell % 2)
        assert torch.equal(made[i, :, y : y + 32, x : x + 32], moved.views[0].pixels[i])
    whole = {pixels(images[n].image).numpy().tobytes(): images.label(n) for n in range(len(images))}
    labels = [whole[picture.numpy().tobytes()] for picture in found.company.images]
    assert all(label != own for label, own in zip(labels, found.labels.repeat_interleave(3).tolist(), strict=True))
    assert len(set(found.company.cells.tolist())) > 1


def test_partners_have_transforms_of_their_own(images):
    found = batch(views(images, color_jitter=(0.4, 0.4, 0.4, 0.1)))
    moved, view = found.to(CPU, channels_last=True), found.company.view
    made = recoloured(warp_images(found.company.images / 255, view.crop), view.look)
    composed = composites_of(moved)[0]
    assert composed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        composed, composites(moved.views[0].pixels, made, found.company.cells), atol=1e-6, rtol=0
    )
    assert len(set(view.crop.left.tolist()) | set(found.views[0].crop.left.tolist())) > 8


def test_worker_and_device_make_the_same_composites(images):
    on_device, in_worker = (batch(views(images, where=where)).to(CPU) for where in ("device", "worker"))
    assert torch.equal(on_device.company.cells, in_worker.company.cells)
    assert (composites_of(on_device)[0] - composites_of(in_worker)[0]).abs().max() < 1.5 / 255


def test_composites_are_functions_of_seed_epoch_and_index(images):
    def found(seed=0, epoch=0, start=0, **options):
        loader = TrainingLoader([views(images, seed=seed)], **{"batch_size": 8, **options})
        batches = list(loader.batches(epoch, start=start))
        loader.close()
        return {
            path: (cell, part.numpy().tobytes())
            for one in batches
            for path, cell, part in zip(one.paths, one.company.cells.tolist(), one.company.images.split(3), strict=True)
        }

    first = found()
    assert found(start=1).items() <= first.items()
    assert found(batch_size=4) == first
    assert found(workers=1) == first
    assert all(found(**other) != first for other in ({"epoch": 1}, {"seed": 1}))


def test_composites_change_nothing_else(images):
    plain, composed = batch(views(images, composite=False)), batch(views(images))
    assert (plain.company, plain.to(CPU).company) == (None, None)
    assert plain.paths == composed.paths
    assert torch.equal(plain.images, composed.images)
    assert plain.views[0].crop.left.tolist() == composed.views[0].crop.left.tolist()


def test_partners_are_pinned(images, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    found = replace(batch(views(images)), views=())
    moved = found.pin_memory()
    assert isinstance(moved.company, Company)
    assert (24, 3, 32, 32) in pinned
    assert len(pinned) == 5
