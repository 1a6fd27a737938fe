"""Evaluating classifiers of one logit and of labels."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from contrex.data import image_set
from contrex.data.sample import ImageSet
from contrex.data.views.evaluation import EvaluationViews
from contrex.errors import ArgumentError, DataError, UnknownNameError
from contrex.evaluation import PROTOCOLS, Bench, Group, Subject, check_names, evaluate, validate, validation_groups
from contrex.metrics import deletion_curve, infidelity, kept_probabilities
from contrex.records import from_plain, to_plain
from contrex.settings import Embedding, Evaluation, Infidelity, MaxSensitivity, Pointing, SingleDeletion
from evaluation.test_protocols import NEED_MORE
from evaluation.test_run import DATA, classifier, subject

NUM = 8
REFUSED = {
    "binary": {"relative_probability", "gradient_sign"},
    "multilabel": {"top1", "top5", "calibration", "fgsm", "relative_probability", "gradient_sign"},
}
OPTIONS = Evaluation(
    metrics=("insertion_auc",),
    split="test",
    limit=NUM,
    limit_by="order",
    gallery=1,
    num_bootstrap=10,
    device="cpu",
    contrast="weighted",
    pointing=Pointing(tolerance=2.0, num_samples=3),
    infidelity=Infidelity(num_samples=2),
    max_sensitivity=MaxSensitivity(num_samples=2),
    single_deletion=SingleDeletion(output="probability"),
    drop_fractions=(0.3,),
    equivariance_shares=(0.5,),
    fgsm_epsilons=(8 / 255,),
    embedding=Embedding(num_classes=2, num_images=1),
)


class Parity(ImageSet):
    """The digits, labelled even or odd."""

    def __init__(self):
        self.images, self.name, self.classes = image_set(DATA, "test"), "parity", ("even", "odd")

    def __len__(self):
        return len(self.images)

    def image(self, index):
        return self.images.image(index)

    def annotation(self, index):
        return self.images.annotation(index)

    def label(self, index):
        return self.images.label(index) % 2

    def path(self, index):
        return self.images.path(index)


def parity(num_logits):
    """The subject that tells odd from even by one logit, or by the softmax over 0 and that logit; both occur."""
    found, images = classifier(1), Parity()
    views = EvaluationViews(images, (32, 32), whole_side=None, needs_whole=False, gallery=())
    with torch.no_grad():
        weight = 20 * found.network.fc.weight
        found.network.fc.weight.copy_(weight)
        squares = torch.stack([views[index].square for index in range(NUM)])
        bias = found.network.fc.bias.sub_(found.network.eval()(found.normalise(squares)).median())
    if num_logits == 2:
        two = nn.Linear(weight.shape[1], 2)
        two.weight.data, two.bias.data = (torch.cat([torch.zeros_like(p), p]) for p in (weight, bias))
        found.network.fc = two
    return Subject("parity", found, images, DATA)


def fitting(task, num_classes):
    some = [name for name in PROTOCOLS if name not in (*REFUSED[task], *NEED_MORE)]
    return tuple(name for name in some if PROTOCOLS[name].min_classes <= num_classes)


def test_one_logit_is_measured_as_its_softmax_twin():
    """With a contrast, so that the twin's maps of class 0 say anything: every metric, image by image, but for the
    randomised networks, which draw other parameters for a larger layer."""
    options = replace(OPTIONS, metrics=fitting("binary", 2))
    one, two = (evaluate(parity(num), options) for num in (1, 2))
    mine, other = one.samples, two.samples
    assert set(mine.predictions.tolist()) == {0, 1}
    assert mine.predictions.tolist() == other.predictions.tolist()
    assert mine.labels.tolist() == other.labels.tolist()
    assert mine.probabilities.tolist() == pytest.approx(other.probabilities.tolist(), rel=2e-3, abs=2e-4)
    for name in mine.values.keys() - {"randomization_spearman"}:
        assert mine.values[name] == pytest.approx(other.values[name], rel=2e-3, abs=2e-4, nan_ok=True), name
    for metric in one.record.metrics:
        assert metric.protocol["task"] == "binary"
    assert "task" not in two.record.metrics[0].protocol
    assert one.record.configuration["evaluation"]["task"] is None


def test_labels_are_measured_by_their_sigmoids():
    options = replace(OPTIONS, metrics=fitting("multilabel", 10), task="multilabel")
    run = evaluate(subject(), options)
    assert run.record.configuration["evaluation"]["task"] == "multilabel"
    assert {metric.protocol["task"] for metric in run.record.metrics} == {"multilabel"}
    views = EvaluationViews(subject().images, (32, 32), whole_side=32, needs_whole=False, gallery=())
    group = Group(Bench(subject(), options), [views[index] for index in range(NUM)])
    network, most = group.bench.network, group.logits.argmax(1)
    assert run.samples.predictions.tolist() == most.tolist()
    own = group.logits.sigmoid().gather(1, most[:, None])[:, 0]
    assert run.samples.probabilities.tolist() == pytest.approx(own.tolist(), rel=1e-4)
    shown = (network, group.squares, group.saliency)
    curves = deletion_curve(*shown, step=256, task="multilabel")
    assert run.record.metric("deletion_auc").value == pytest.approx(
        torch.trapezoid(curves.double(), dx=1 / 4).mean().item(), rel=1e-4
    )
    _, kept = kept_probabilities(*shown, fractions=(0.3,), task="multilabel")
    falls = 100 * (kept[:, 0] < own).double()
    assert run.record.metric("drop_percent_30").value == pytest.approx(falls.mean().item())
    error = infidelity(
        *shown,
        num_samples=2,
        noise_std=0.1,
        seeds=group.bench.seeds("infidelity", group.indices),
        output="probability",
        normalise=True,
        task="multilabel",
    )
    assert run.record.metric("infidelity").value == pytest.approx(error.mean().item(), rel=1e-3)


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in REFUSED.items() for name in sorted(names)])
def test_what_cannot_judge_a_task_is_refused_by_name(task, name):
    message = f"`evaluation.metrics` has {name}, which cannot judge a {task} classifier: .* Leave it out"
    with pytest.raises(ArgumentError, match=message):
        check_names(replace(OPTIONS, metrics=(name,), task=task))
    assert set(PROTOCOLS[name].unfit) >= {task}


def test_what_does_not_fit_the_classifier_is_refused():
    with pytest.raises(ArgumentError, match="has gradient_sign, which cannot judge a binary classifier"):
        evaluate(parity(1), replace(OPTIONS, metrics=("gradient_sign",)))
    with pytest.raises(ArgumentError, match="`task` 'binary' needs one logit, the model has 2"):
        evaluate(parity(2), replace(OPTIONS, metrics=("top1",), task="binary"))
    with pytest.raises(ArgumentError, match="has top5, which needs at least 5 classes; there are 2"):
        evaluate(parity(1), replace(OPTIONS, metrics=("top5",)))
    with pytest.raises(DataError, match="parity has 2 classes, the classifier 1"):
        evaluate(parity(1), replace(OPTIONS, task="multilabel"))
    with pytest.raises(DataError, match="has 10 classes, the classifier 2"):
        evaluate(replace(subject(), classifier=classifier(1)), OPTIONS)


def test_the_loss_of_one_logit_is_its_twins():
    found = []
    for num in (1, 2):
        who = parity(num)
        found.append(validate(who.classifier, validation_groups(who.images, DATA), device=torch.device("cpu")))
    assert found[0] == pytest.approx(found[1])
    assert 0 < found[0].top1 < 100


def test_the_task_is_part_of_the_settings():
    options = replace(OPTIONS, task="multilabel")
    assert from_plain(to_plain(options), Evaluation) == options
    older = {key: value for key, value in to_plain(OPTIONS).items() if key != "task"}
    assert from_plain(older, Evaluation) == OPTIONS
    with pytest.raises(UnknownNameError, match="`task` must be one of"):
        evaluate(subject(), replace(OPTIONS, task="labels"))
