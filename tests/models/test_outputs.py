"""What networks return, read where there is one reading, and refused with what there is where not."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import nn

import contrex
from contrex.errors import ArgumentError
from contrex.explain.contract import gives_what_it_promises
from contrex.metrics import fgsm_direction, insertion_curve, kept_probabilities, score_gradients
from contrex.models import Classifier, model_logits
from explain.networks import images, network
from sampling import crossed


@dataclass
class Output:
    logits: torch.Tensor
    hidden: object = None


Pair = namedtuple("Pair", ["scores", "maps"])
Aux = namedtuple("Aux", ["logits", "aux"])


class Returning(nn.Module):
    """A network whose output is put into something."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = network("mlp"), form

    def forward(self, x):
        return self.form(self.net(x), x)


READ = {
    "attribute": lambda y, x: Output(y, y),
    "entry": lambda y, x: {"logits": y, "embedding": y[:, :2]},
    "tuple": lambda y, x: (y, x),
    "list": lambda y, x: [None, x.mean(), y, y.argmax(1)],
    "named tuple": Pair,
    "named logits and auxiliary": lambda y, x: Aux(y, y + 1),
    "alone in a tuple": lambda y, x: (y,),
}


@pytest.mark.parametrize(
    ("form", "kind"), crossed(READ.values(), [contrex.GradCAM, contrex.Gradient, contrex.explain.Occlusion], one_in=3)
)
def test_logits_are_found_in_what_holds_them(form, kind):
    expected = kind(network("mlp"))(images(), target=1)
    found = kind(Returning(form).eval())(images(), target=1)
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(found.logits, expected.logits)


def test_the_contract_holds_for_a_network_that_returns_more():
    gives_what_it_promises(contrex.GradCAM, Returning(READ["tuple"]).eval(), images())


REFUSED = {
    "a number": (lambda y, x: y.sum(), r"returned a tensor \[\] .*one number for the whole batch"),
    "a score per image": (lambda y, x: y[:, 0], r"a tensor \[3\] .*without the axis of the classes; wrap it with"),
    "dense": (
        lambda y, x: x,
        r"a tensor \[3, 3, 8, 12\] .*a prediction for each place.*`output.flatten\(2\).mean\(2\)`",
    ),
    "tokens": (lambda y, x: x.flatten(2), "a prediction for each place"),
    "classes": (lambda y, x: y.argmax(1), r"a tensor of int64 \[3\] .*before any argmax"),
    "one-hot": (lambda y, x: y > 0, r"a tensor of bool \[3, 4\] .*no scores"),
    "two of two axes": (
        lambda y, x: (y, y),
        r"tuple \(a tensor \[3, 4\], a tensor \[3, 4\]\).*returns the logits alone",
    ),
    "names that tell nothing": (lambda y, x: {"out": y}, r"dict \('out': a tensor \[3, 4\]\)"),
    "named tuple of two": (lambda y, x: Pair(y, y), r"Pair \(scores: a tensor \[3, 4\], maps: a tensor"),
    "nothing": (lambda y, x: None, "returned NoneType for 3 image"),
    "other rows": (lambda y, x: y[:2], r"a tensor \[2, 4\] for 3 image\(s\): wrap it so that it does"),
    "no classes": (lambda y, x: y[:, :0], r"a tensor \[3, 0\]"),
    "dense logits": (lambda y, x: Output(x), "returned Output for 3 image.*a prediction for each place"),
}


@pytest.mark.parametrize(("form", "message"), REFUSED.values(), ids=REFUSED)
def test_other_outputs_are_refused_with_what_there_is(form, message):
    net = Returning(form).eval()
    for call in (contrex.Gradient(net), contrex.explain.RISE(net, num_masks=2), lambda x: model_logits(net, x)):
        with pytest.raises(ArgumentError, match=message):
            call(images())


def test_a_squeezed_batch_of_one_is_told_how_to_keep_its_axes():
    with pytest.raises(ArgumentError, match=r"a tensor \[4\] for 1 image.*with `\[None\]`"):
        contrex.Gradient(Returning(lambda y, x: y.squeeze(0)).eval())(images(1))


def test_metrics_and_evaluation_read_outputs_alike():
    plain, wrapped = network("mlp").float(), Returning(READ["tuple"]).float().eval()
    x, target = images().float(), torch.tensor([0, 1, 2])
    saliency = torch.rand(3, 8, 12)
    black = torch.zeros_like(x)
    asked = {
        "insertion": lambda net: insertion_curve(net, x, saliency, target=target, step=20, baseline=black),
        "drop": lambda net: kept_probabilities(net, x, saliency, fractions=[0.5], baseline=black)[1],
        "gradients": lambda net: score_gradients(net, x, target, {"own": None})["own"],
        "fgsm": lambda net: fgsm_direction(net, x, target),
    }
    for name, ask in asked.items():
        torch.testing.assert_close(ask(wrapped), ask(plain), msg=name)
    with pytest.raises(ArgumentError, match="before any argmax"):
        asked["fgsm"](Returning(REFUSED["classes"][0]).float())


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_explained_past_and_not_trained(name):
    from contrex.methods.cgc import CGCStep
    from contrex.methods.cross_entropy import CrossEntropyStep
    from contrex.settings import CGC, CrossEntropy

    with torch.device("meta"):
        net = torchvision.models.get_model(name, weights=None, num_classes=4, init_weights=False)
    for kind, options in ((CrossEntropyStep, CrossEntropy()), (CGCStep, CGC())):
        with pytest.raises(ArgumentError, match=r"has auxiliary classifiers.*`--model.options aux_logits False`"):
            kind(Classifier(net, (0.0,) * 3, (1.0,) * 3), options)


def test_an_output_of_several_logits_is_not_trained():
    from contrex.methods.cross_entropy import CrossEntropyStep
    from contrex.settings import CrossEntropy

    for form in (READ["named logits and auxiliary"], lambda y, x: (y, y), lambda y, x: {"logits": y, "aux": y}):
        step = CrossEntropyStep(Classifier(Returning(form).float(), (0.0,) * 3, (1.0,) * 3), CrossEntropy())
        with pytest.raises(ArgumentError, match="`model` Returning has auxiliary classifiers"):
            step.logits(images().float())
    step = CrossEntropyStep(Classifier(Returning(READ["tuple"]).float(), (0.0,) * 3, (1.0,) * 3), CrossEntropy())
    assert step.logits(images().float()).shape == (3, 4)
