from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.data import image_set
from contrex.data.loading import TrainingLoader
from contrex.data.streams import stream
from contrex.data.views.batch import Batch, View
from contrex.data.views.photometric import recoloured
from contrex.data.views.squares import central_square, central_square_boxes, short_side
from contrex.data.views.training import TrainingViews, num_batches
from contrex.ops.geometry import Crop, warp_images
from contrex.settings import Augmentation, Digits

DATA = Digits(num_train=20, num_val=2, num_test=2, image_size=32, digit_size=(14, 18), num_clutter=2)


@pytest.fixture(scope="module")
def images():
    return image_set(DATA, "train")


COLOURS = {"color_jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.3}


def views(images, *, where="device", seed=0, num_views=1, flip=0.5, **colours):
    augmentation = Augmentation(scale=(0.3, 1.0), flip=flip, where=where, **colours)
    return TrainingViews(images, resize=32, size=32, augmentation=augmentation, seed=seed, num_views=num_views)


def batches(source, **options):
    """Of one epoch: options of the loader, and of its `batches`."""
    wanted = {name: options.pop(name) for name in ("epoch", "start") if name in options}
    loader = TrainingLoader([source], **{"batch_size": 6, **options})
    found = list(loader.batches(**{"epoch": 0, **wanted}))
    loader.close()
    return found


def test_an_epoch_has_every_image_once_and_drops_the_rest(images):
    found = batches(views(images))
    assert len(found) == num_batches(images, 6) == 3
    paths = [path for batch in found for path in batch.paths]
    assert len(set(paths)) == 18
    assert found[0].images.shape == (6, 3, 32, 32)
    assert found[0].images.dtype == torch.uint8
    assert found[0].views[0].pixels is None


def test_order_and_crops_are_functions_of_seed_and_epoch(images):
    def fingerprint(**options):
        seed = options.pop("seed", 0)
        return [
            (b.paths, b.views[0].crop.left.tolist(), b.views[0].crop.flip.tolist())
            for b in batches(views(images, seed=seed), **options)
        ]

    torch.manual_seed(1)
    first = fingerprint()
    torch.manual_seed(2)
    assert fingerprint() == first
    assert fingerprint(start=1) == first[1:]
    assert fingerprint(epoch=1) != first
    assert fingerprint(seed=1) != first


@pytest.mark.parametrize("where", ["worker", "device"])
def test_after_a_period_the_same_views_come_again_in_another_order(images, where):
    source = views(images, where=where, period=2, num_views=2, **COLOURS)
    of_epochs = [source.batch([(epoch, index) for index in range(5)]) for epoch in range(5)]
    for epoch, batch in enumerate(of_epochs):
        assert all(view.draws.tolist() == [epoch % 2] * 5 for view in batch.views)
        for view, first in zip(batch.views, of_epochs[epoch % 2].views, strict=True):
            assert torch.equal(view.crop.left, first.crop.left)
            assert torch.equal(view.look.factors, first.look.factors)
            assert view.pixels is None or torch.equal(view.pixels, first.pixels)
    assert not torch.equal(of_epochs[0].views[0].crop.left, of_epochs[1].views[0].crop.left)
    assert source.order(0) != source.order(2)
    always = views(images, where=where, num_views=2, **COLOURS).batch([(1, index) for index in range(5)])
    assert torch.equal(always.views[0].crop.left, of_epochs[1].views[0].crop.left)
    assert always.views[0].draws is None
    both = Batch.join([of_epochs[0], of_epochs[1]])
    assert both.part(slice(4, 6)).views[1].draws.tolist() == [0, 1]


def test_loading_draws_nothing_from_the_global_generators(images):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(views(images))
    assert torch.equal(before, torch.get_rng_state())


def test_one_images_crop_does_not_depend_on_its_batch(images):
    by_path = {}
    for size in (2, 5):
        for batch in batches(views(images), batch_size=size):
            for i, path in enumerate(batch.paths):
                by_path.setdefault(path, []).append(
                    (batch.views[0].crop.top[i].item(), batch.views[0].crop.width[i].item())
                )
    assert all(len(set(found)) == 1 for found in by_path.values())


def test_worker_and_device_cut_the_same_views(images):
    on_device = batches(views(images))[0].to(torch.device("cpu"))
    in_worker = batches(views(images, where="worker"))[0].to(torch.device("cpu"))
    assert on_device.images.amax() <= 1
    assert (on_device.views[0].pixels - in_worker.views[0].pixels).abs().max() < 1.5 / 255
    torch.testing.assert_close(on_device.views[0].pixels, warp_images(on_device.images, on_device.views[0].crop))


def test_extra_views_are_independent(images):
    batch = batches(views(images, num_views=2))[0]
    assert batch.views[1].crop.left.tolist() != batch.views[0].crop.left.tolist()
    moved = batch.to(torch.device("cpu"), channels_last=True)
    torch.testing.assert_close(moved.views[1].pixels, warp_images(moved.images, batch.views[1].crop))
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert moved.views[0].pixels.is_contiguous(memory_format=torch.channels_last)
    assert len(batches(views(images))[0].to(torch.device("cpu")).views) == 1


def test_a_batch_knows_its_images_places(images):
    for batch in batches(views(images)):
        assert batch.indices.dtype == torch.int64
        assert [images[index].path for index in batch.indices.tolist()] == batch.paths
        assert batch.to(torch.device("cpu")).indices.tolist() == batch.indices.tolist()


# --- colours --------------------------------------------------------------------------------------------------------


def test_without_colours_there_is_no_look(images, monkeypatch):
    monkeypatch.setattr("contrex.data.views.training.random_look", lambda *_, **__: pytest.fail("drawn"))
    batch = batches(views(images, num_views=2))[0]
    assert (batch.views[0].look, batch.views[1].look) == (None, None)


def test_colours_come_after_crop_and_flip(images):
    batch = batches(views(images, num_views=2, **COLOURS))[0]
    assert batch.views[0].pixels is None
    moved = batch.to(torch.device("cpu"), channels_last=True)
    torch.testing.assert_close(
        moved.views[0].pixels, recoloured(warp_images(moved.images, batch.views[0].crop), batch.views[0].look)
    )
    torch.testing.assert_close(
        moved.views[1].pixels, recoloured(warp_images(moved.images, batch.views[1].crop), batch.views[1].look)
    )
    assert moved.views[0].pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.views[0].look.factors.tolist() != batch.views[1].look.factors.tolist()


@pytest.mark.parametrize("where", ["worker", "device"])
def test_colours_change_neither_crops_nor_plain_images(images, where):
    for plain, coloured in zip(batches(views(images)), batches(views(images, where=where, **COLOURS)), strict=True):
        assert torch.equal(plain.images, coloured.images)
        assert plain.views[0].crop.left.tolist() == coloured.views[0].crop.left.tolist()
        assert plain.views[0].crop.flip.tolist() == coloured.views[0].crop.flip.tolist()
        assert plain.paths == coloured.paths


def test_worker_and_device_change_colours_alike(images):
    """They differ by the rounding of the crop and of the view, which a strong contrast can only double."""
    on_device = batches(views(images, num_views=2, **COLOURS))[0].to(torch.device("cpu"))
    in_worker = batches(views(images, where="worker", num_views=2, **COLOURS))[0]
    assert in_worker.views[0].pixels.dtype == torch.uint8
    moved = in_worker.to(torch.device("cpu"))
    plain = batches(views(images))[0].to(torch.device("cpu"))
    for ours, theirs in (
        (on_device.views[0].pixels, moved.views[0].pixels),
        (on_device.views[1].pixels, moved.views[1].pixels),
    ):
        assert (ours - theirs).abs().max() < 6 / 255
        assert (ours - theirs).abs().mean() < 0.6 / 255
    assert (moved.views[0].pixels - plain.views[0].pixels).abs().mean() > 10 / 255


def test_colours_are_functions_of_seed_epoch_and_index(images):
    def found(seed=0, **options):
        source = views(images, where="worker", seed=seed, **COLOURS)
        return {
            path: (look, view.tolist())
            for b in batches(source, **options)
            for path, look, view in zip(b.paths, b.views[0].look.factors.tolist(), b.views[0].pixels, strict=True)
        }

    first = found()
    assert found(start=1).items() <= first.items()
    resized = found(batch_size=5)
    assert all(resized[path] == first[path] for path in resized.keys() & first.keys())
    assert found(workers=1) == first
    for other in (found(epoch=1), found(seed=1)):
        assert all(other[path][0] != first[path][0] for path in other.keys() & first.keys() if other[path][0][0] != 1)


def test_grey_views_are_grey_after_the_jitter(images):
    batch = batches(views(images, where="worker", color_jitter=(0, 0, 0, 0.5), jitter_probability=1.0, grayscale=1.0))[
        0
    ]
    assert torch.equal(batch.views[0].pixels[:, 0], batch.views[0].pixels[:, 1])
    assert torch.equal(batch.views[0].pixels[:, 0], batch.views[0].pixels[:, 2])


# --- the plain view -------------------------------------------------------------------------------------------------


def test_plain_views_are_resized_and_centred():
    array = np.zeros((40, 80, 3), np.uint8)
    array[:, 20:60] = 255
    square = central_square(Image.fromarray(array), resize=40, size=40)
    assert np.asarray(square).min() == 255
    assert short_side(Image.fromarray(array), 20).size == (40, 20)
    assert short_side(Image.fromarray(array.transpose(1, 0, 2)), 20).size == (20, 40)
    assert central_square(Image.fromarray(array), resize=50, size=40).size == (40, 40)


def test_streams_differ_by_place():
    places = [("a",), ("a", 0), ("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("a", 0, 0, 1), ("b", 0, 0)]
    assert len({stream(*place).integers(2**62) for place in places}) == 7
    assert stream("a", 3, 4).integers(2**62) == stream("a", 3, 4).integers(2**62)


def test_a_batch_is_pinned_whole(monkeypatch):
    """The loader pins only what has this method; without it transfers wait for the device without a word."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    zeros = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    batch = Batch(zeros, torch.zeros(2, dtype=torch.long), ["a", "b"], (View(zeros, Crop.identity(2, 4)),))
    assert torch.equal(batch.pin_memory().images, zeros)
    assert len(pinned) == 3
    replace(batch, views=batch.views * 2, indices=torch.arange(2)).pin_memory()
    assert len(pinned) == 3 + 5


@pytest.mark.parametrize("where", ["worker", "device"])
def test_a_part_of_a_batch_is_that_of_its_images(images, where):
    augmentation = Augmentation(scale=(0.3, 1.0), where=where, **COLOURS)
    source = TrainingViews(images, resize=32, size=32, augmentation=augmentation, seed=0, num_views=2, composite=True)
    (batch, *_), cpu = batches(source), torch.device("cpu")
    first, then = batch.part(slice(1, 3)).to(cpu), batch.to(cpu).part(slice(1, 3))
    assert (len(first), first.paths, first.indices.tolist()) == (2, batch.paths[1:3], batch.indices[1:3].tolist())
    assert torch.equal(first.images, then.images)
    for one, other in zip(first.views, then.views, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert one.look.factors.tolist() == other.look.factors.tolist()
    assert torch.equal(first.company.view.pixels, then.company.view.pixels)
    assert torch.equal(first.company.cells, then.company.cells)
    assert len(first.company.view.pixels) == 6


def test_a_box_beside_the_central_square_is_dropped():
    """Enlarged, it begins at 63.99999999999999 of 64 pixels."""
    boxes = central_square_boxes(
        np.array([[73.5, 0, 90, 20], [70, 0, 90, 20]], np.float32), (49, 98), resize=64, size=64
    )
    np.testing.assert_allclose(boxes, [[(70 - 24.5) * 64 / 49, 0, 64, 20 * 64 / 49]], rtol=1e-6)
