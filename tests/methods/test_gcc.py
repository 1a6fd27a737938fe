"""The GCC step against its equation: autograd for the maps, loops for the loss."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from contrex.data.views.batch import Batch, View
from contrex.data.views.company import Company
from contrex.errors import ArgumentError, UnknownNameError
from contrex.methods import training_step
from contrex.models import Classifier
from contrex.models.convnet import ConvNet
from contrex.ops.geometry import Crop, random_crop, warp_images
from contrex.settings import GCC
from oracles import gcc as oracle
from sampling import crossed, sampled


def make_classifier():
    torch.manual_seed(4)
    return Classifier(ConvNet(3, widths=(4, 6), strides=(2, 2)).double(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def make_batch(num=4, side=16):
    generator = torch.Generator().manual_seed(0)
    images, partners = (
        torch.rand(count * num, 3, side, side, generator=generator, dtype=torch.float64) for count in (1, 3)
    )
    crop = random_crop(num, side, scale=(0.3, 1.0), ratio=(0.75, 1.33), flip=0.5, generator=np.random.default_rng(0))
    views, cells = warp_images(images, crop), torch.tensor([2, 0, 3, 1])[:num]
    return Batch(
        images=images,
        views=(View(views, crop),),
        labels=torch.randint(3, (num,), generator=generator),
        paths=[f"{i}.png" for i in range(num)],
        company=Company(None, View(partners, Crop.identity(3 * num, side)), cells),
    )


def by_hand(batch):
    """The composites of a batch, image by image."""
    views, partners, cells = batch.views[0].pixels, batch.company.view.pixels, batch.company.cells.tolist()
    parts = zip(views, partners.split(3), cells, strict=True)
    return torch.stack([oracle.composite(view, three, cell) for view, three, cell in parts])


def maps_of(network, images, labels, contrast):
    """The heatmaps of the ground-truth class, with a graph to the parameters, and the logits."""
    activation = network.features(images * 4 - 2)
    logits = network.fc(activation.mean((2, 3)))
    score = logits.gather(1, labels[:, None])[:, 0]
    if contrast == "weighted":
        score = score - logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    (gradient,) = torch.autograd.grad(score.sum(), activation, create_graph=True)
    return (gradient * activation).sum(1), logits


@sampled(one_in=2)
@pytest.mark.parametrize(
    ("views", "contrast", "training"),
    crossed(["both", "plain", "transformed"], [None, "weighted"], [True, False], one_in=3),
)
def test_the_step_is_its_equation(views, contrast, training):
    """Loss to 1e-8 and every parameter's gradient to 1e-6, through both maps, in both modes of batch norm."""
    batch, classifier = make_batch(), make_classifier()
    step = training_step(classifier, GCC(weight=7.0, views=views, contrast=contrast)).train(training)
    step(batch)  # the first call verifies the closed form
    network = make_classifier().network.train(training)
    network.load_state_dict(classifier.network.state_dict())
    output = step(batch)

    num, labels = len(batch), batch.labels
    seen = [batch.views[0].pixels] if views == "transformed" else [batch.images, batch.views[0].pixels]
    maps, logits = maps_of(network, torch.cat(seen), labels.repeat(len(seen)), contrast)
    found, _ = maps_of(network, by_hand(batch), labels, contrast)
    term = oracle.loss(maps[-num:], found, batch.company.cells.tolist())
    counted = {"both": logits, "plain": logits[:num], "transformed": logits[-num:]}[views]
    expected = F.cross_entropy(counted, labels.repeat(len(counted) // num)) + 7.0 * term

    torch.testing.assert_close(output.loss, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(output.logs["consistency"], term.detach(), rtol=1e-8, atol=1e-10)
    output.loss.backward()
    gradients = torch.autograd.grad(expected, list(network.parameters()))
    for parameter, gradient in zip(classifier.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


def test_the_label_is_explained_not_the_prediction():
    batch, classifier = make_batch(), make_classifier()
    step = training_step(classifier, GCC()).eval()
    terms = [step(replace(batch, labels=torch.full_like(batch.labels, label))).logs["consistency"] for label in (0, 1)]
    assert terms[0] != terms[1]


def test_what_is_shown():
    batch = make_batch()
    shown = training_step(make_classifier(), GCC()).shown(batch.part(slice(2)))
    assert {name: images.shape for name, images in shown.rows.items()} == {
        "view": (2, 3, 16, 16),
        "composite": (2, 3, 32, 32),
    }


def test_refuses():
    step = training_step(make_classifier(), GCC())
    with pytest.raises(ArgumentError, match=r"`batch` has no company to compose: make it with `composite=True`"):
        step(replace(make_batch(), company=None))
    with pytest.raises(ArgumentError, match=r"`heatmaps_composite` must be \[4,10,10\].*Take an image size"):
        step(make_batch(side=18))
    with pytest.raises(UnknownNameError, match="`layer` of ConvNet"):
        training_step(make_classifier(), GCC(layer="layer4"))
    with pytest.raises(ArgumentError, match=r"`method.weight` must be at least 0, got -1"):
        GCC(weight=-1.0)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "no pooling"])
def test_networks_of_one_size_are_refused_by_name(name):
    torch.manual_seed(0)
    if name.startswith("timm"):
        network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, depth=2)
        nn.init.normal_(network.head.weight)
    else:
        network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 3))
    step = training_step(Classifier(network, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), GCC())
    batch = make_batch(side=32)
    (view,), company = batch.views, batch.company
    batch = replace(
        batch,
        images=batch.images.float(),
        views=(replace(view, pixels=view.pixels.float()),),
        company=replace(company, view=replace(company.view, pixels=company.view.pixels.float())),
    )
    with pytest.raises(
        ArgumentError, match=r"composites have twice the side of the images, 64 x 64, and \w+, which took"
    ):
        step(batch)
