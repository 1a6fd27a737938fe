"""Networks without a classifier give embeddings: nothing explains, trains or measures them as scores of classes."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from contrex.errors import ArgumentError
from contrex.explain import EXPLAINERS
from contrex.methods.cross_entropy import CrossEntropyStep
from contrex.models import Classifier, check_classifier, load_classifier
from contrex.settings import CrossEntropy, Model
from sampling import crossed


def timm_network(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


def reset():
    net = timm_network("vit_tiny_patch16_224")
    net.reset_classifier(0)
    return net


def replaced(name, part, last=None):
    with torch.device("meta"):
        net = torchvision.models.get_model(name, weights=None)
    if last is None:
        setattr(net, part, nn.Identity())
    else:
        getattr(net, part)[last] = nn.Identity()
    return net


def body(*end):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *end)


EMBEDDINGS = {
    "timm cnn": lambda: timm_network("resnet18", num_classes=0),
    "timm transformer": reset,
    "timm distilled": lambda: timm_network("deit_tiny_distilled_patch16_224", num_classes=0),
    "timm whose get_classifier fails": lambda: timm_network("efficientvit_m0", num_classes=0),
    "resnet": lambda: replaced("resnet18", "fc"),
    "densenet": lambda: replaced("densenet121", "classifier"),
    "vgg": lambda: replaced("vgg11", "classifier", 6),
    "mobilenet": lambda: replaced("mobilenet_v3_small", "classifier", 3),
    "convnext": lambda: replaced("convnext_tiny", "classifier", 2),
    "vit": lambda: replaced("vit_b_32", "heads", 0),
    "sequential": lambda: body(nn.Identity()),
    "wrapped": lambda: nn.DataParallel(body(nn.Identity())),
}


@pytest.mark.parametrize("name", crossed(EMBEDDINGS, one_in=3))
def test_embeddings_are_refused_by_name(name):
    net = EMBEDDINGS[name]()
    name = type(net.module if isinstance(net, nn.DataParallel) else net).__name__
    with pytest.raises(
        ArgumentError, match=rf"`model` {name} has no classifier \(num_classes=0, .*not scores of classes"
    ):
        check_classifier(net)


def test_no_method_explains_an_embedding():
    net = EMBEDDINGS["resnet"]()
    for kind in EXPLAINERS.values():
        with pytest.raises(ArgumentError, match="`model` ResNet has no classifier"):
            kind(net)(torch.zeros(1, 3, 32, 32))


def test_none_is_loaded_or_trained():
    with pytest.raises(ArgumentError, match="`model` ResNet has no classifier"):
        load_classifier(Model("timm:resnet18", {"num_classes": "0"}))
    with pytest.raises(ArgumentError, match="`model` Sequential has no classifier"):
        CrossEntropyStep(Classifier(body(nn.Identity()), (0.0,) * 3, (1.0,) * 3), CrossEntropy())


class Convolutional(nn.Module):
    """Its last convolution gives the classes, its head only pools."""

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 3), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Strange(nn.Module):
    def get_classifier(self, name):
        return name


CLASSIFIERS = {
    "linear": lambda: body(nn.Linear(4, 4)),
    "linear and identity": lambda: body(nn.Linear(4, 4), nn.Dropout(), nn.Identity()),
    "convolution": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity()),
    "squeezenet": lambda: torchvision.models.squeezenet1_1(weights=None),
    "distilled": lambda: timm_network("deit_tiny_distilled_patch16_224"),
    "two": lambda: timm_network("crossvit_tiny_240"),
    "no name": nn.Identity,
    "a method of that name": Strange,
}


@pytest.mark.parametrize("build", crossed(CLASSIFIERS.values(), one_in=2))
def test_classifiers_of_every_kind_pass(build):
    check_classifier(build())
