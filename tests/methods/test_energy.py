"""Heatmaps guided into boxes: the loss against its sum over pixels, boxes that follow the views, and few of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contrex.data import image_set
from contrex.data.views.batch import Batch
from contrex.data.views.training import TrainingViews
from contrex.errors import ArgumentError, DataError
from contrex.losses import energy_losses
from contrex.methods import training_step
from contrex.settings import Augmentation, Digits, EnergyGuided
from contrex.training import read_log, train
from methods.test_retrofit import boxes_of, maps_for
from methods.test_steps import make_batch, make_classifier
from oracles import energy as oracle
from sampling import sampled
from training.runs import quiet, tiny


def maps_of(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_the_loss_is_its_sum_over_pixels():
    heatmaps, masks = maps_of(3, 3, 5).requires_grad_(), torch.zeros(3, 12, 10, dtype=torch.bool)
    boxes = [[[2, 1, 7, 9], [6, 8, 10, 12]], [[0, 0, 10, 12]], []]
    masks[0, 1:9, 2:7] = masks[0, 8:12, 6:10] = masks[1] = True
    expected = torch.stack([oracle.energy_loss(a, b, (12, 10)) for a, b in zip(heatmaps, boxes, strict=True)])
    found = energy_losses(heatmaps, masks)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert 0 < found[0] < 1
    assert found[1:].abs().max() < 1e-8
    torch.testing.assert_close(
        *(torch.autograd.grad(loss.sum(), heatmaps, retain_graph=True)[0] for loss in (found, expected)),
        rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    assert energy_losses(-heatmaps.detach().abs(), masks).tolist() == [1, 1, 0]


@sampled(one_in=2)
@pytest.mark.parametrize("views", ["both", "plain", "transformed"])
@pytest.mark.parametrize("contrast", [None, "weighted"])
def test_the_step_is_its_equation(views, contrast):
    classifier, batch = make_classifier(), make_batch()
    network = classifier.network.eval()
    step = training_step(classifier, EnergyGuided(weight=0.7, views=views, contrast=contrast)).eval()
    step(batch)  # the first call verifies the closed form
    seen = {"plain": [batch.images], "transformed": [batch.views[0].pixels]}
    images = torch.cat(seen.get(views) or seen["plain"] + seen["transformed"])
    labels = batch.labels.repeat(len(images) // 4)
    plain = [boxes.tolist() for boxes in batch.boxes]
    view = [[oracle.moved_box(box, crop, 16) for box in own] for own, crop in zip(plain, boxes_of(batch), strict=True)]
    view = [[box for box in own if box[0] < box[2] and box[1] < box[3]] for own in view]
    boxes = {"plain": plain, "transformed": view, "both": plain + view}[views]
    logits, maps, _ = maps_for(network, images, labels, contrast)
    energy = torch.stack([oracle.energy_loss(a, b, (16, 16)) for a, b in zip(maps, boxes, strict=True)]).mean()
    expected = F.cross_entropy(logits, labels) + 0.7 * energy
    output = step(batch)
    torch.testing.assert_close(output.loss, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(output.logs["energy"], energy, rtol=1e-8, atol=1e-10)
    assert output.logs["with_boxes"] == pytest.approx(sum(map(bool, boxes)) / len(boxes))
    output.loss.backward()
    own = list(network.parameters())
    for parameter, gradient in zip(own, torch.autograd.grad(expected, own), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


def test_images_without_boxes_have_the_cross_entropy_alone():
    batch = make_batch()
    without = replace(batch, boxes=[np.zeros((0, 4), np.float32)] * 4)
    logs = training_step(make_classifier(), EnergyGuided(weight=5.0)).eval()(without).logs
    assert logs["loss"] == logs["cross_entropy"]
    whole = training_step(make_classifier(), EnergyGuided(weight=5.0, views="plain")).eval()
    halves = [whole(batch.part(some)).loss for some in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(whole(batch).loss, sum(halves) / 2)  # parts of a batch add up


def views_of_digits(**options):
    images = image_set(Digits(num_train=40, image_size=32, digit_size=(14, 18), num_clutter=2), "train")
    augmentation = Augmentation(scale=(0.4, 1.0), flip=0.5)
    return images, TrainingViews(images, resize=32, size=32, augmentation=augmentation, seed=3, **options)


def test_boxes_are_read_for_the_share_that_is_drawn():
    images, views = views_of_digits(boxes=0.3)
    asked = []
    annotation = images.annotation
    images.annotation = lambda index: (asked.append(index), annotation(index))[1]
    batch = Batch.join([views[0, index] for index in range(40)])
    drawn = [index for index in range(40) if len(batch.boxes[index])]
    assert asked == drawn
    assert 5 <= len(drawn) <= 20
    for index in drawn:
        np.testing.assert_allclose(batch.boxes[index], annotation(index).boxes)
    again = Batch.join([views[7, index] for index in range(40)])  # the same in each epoch
    assert [len(boxes) for boxes in again.boxes] == [len(boxes) for boxes in batch.boxes]
    assert [len(boxes) for boxes in batch.part(slice(3, 9)).boxes] == [len(boxes) for boxes in batch.boxes[3:9]]
    assert views_of_digits()[1][0, 0].boxes is None


def test_a_run_learns_from_boxes(tmp_path):
    train(replace(tiny(epochs=1), method=EnergyGuided(boxes=0.5)), tmp_path, console=quiet())
    lines = [line for line in read_log(tmp_path) if "energy" in line]
    assert len(lines) == 3
    assert all(line["loss"] == pytest.approx(line["cross_entropy"] + line["energy"], rel=1e-5) for line in lines)
    assert 0 < np.mean([line["with_boxes"] for line in lines]) < 1


def test_what_is_refused():
    _, views = views_of_digits(boxes=0.5)
    views.check_boxes()
    views.boxes = 1e-9
    with pytest.raises(DataError, match="has no boxes to train on, in a share of 1e-09 of its 40 images: take a data"):
        views.check_boxes()
    with pytest.raises(ArgumentError, match="`batch` has no boxes: say so in the step's `wants`"):
        training_step(make_classifier(), EnergyGuided())(replace(make_batch(), boxes=None))
    with pytest.raises(ArgumentError, match=r"`heatmaps` must be \[N,h,w\] and `masks` boolean \[N,H,W\], one per"):
        energy_losses(torch.zeros(2, 3, 3), torch.zeros(1, 9, 9, dtype=torch.bool))
