"""Self-distilled consistency against its equation; what is trained, in which mode, and what the teacher does."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.losses import distillation_loss
from contrex.methods import training_plan, training_step
from contrex.methods.incomplete import drawn, incomplete
from contrex.models import build_network, last_stage
from contrex.ops.pixels import gaussian_blur
from contrex.settings import Augmentation, Digits, Labelled, Model, Recipe, Retrofit, Training
from distributed.jobs import TokenNet
from methods.test_steps import make_batch, make_classifier
from methods.test_unlabelled import two_batches
from oracles import retrofit as oracle
from sampling import crossed, sampled

BASE = Retrofit(
    weight=0.7, distillation_weight=1.3, distillation_temperature=2.0, temperature=0.4, resolution=16, trained=("all",)
)


def moved(classifier, seed=1, by=0.1):
    """The network after some training: other weights and statistics than its teacher has."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in classifier.network.state_dict().values():
            if value.is_floating_point():
                value.add_(by * torch.rand(value.shape, generator=generator, dtype=value.dtype))
    return classifier.network


def outputs(network, batch, *, contrast=None, of_input=False, num=None):
    """Logits and maps `[N+n]` by autograd, for the top classes of the N plain images, of which the first n have a view;
    n is all where it is None."""
    images = (torch.cat([batch.images, batch.views[0].pixels[:num]]) * 4 - 2).requires_grad_(of_input)
    activation = network.features(images)
    logits = network.fc(activation.mean((2, 3)))
    target = logits[: len(batch)].argmax(1).repeat(2)[: len(logits)]
    score = logits.gather(1, target[:, None])[:, 0]
    if contrast == "weighted":
        score = score - logits.scatter(1, target[:, None], -torch.inf).logsumexp(1)
    explained = images if of_input else activation
    (gradient,) = torch.autograd.grad(score.sum(), explained, create_graph=True)
    return logits, (gradient * explained).sum(1)


def boxes_of(batch):
    crop = batch.views[0].crop
    sides = (crop.top, crop.left, crop.height, crop.width, crop.flip)
    return list(zip(*(side.tolist() for side in sides), strict=True))


def by_hand(network, teacher, batch, settings, extra=None):
    num = math.ceil(settings.views_share * len(batch))
    options = {"contrast": settings.contrast, "of_input": settings.explainer == "gradient_times_input", "num": num}
    logits, maps = outputs(network, batch, **options)
    return oracle.loss(
        outputs(teacher, batch, num=num)[0].detach(),
        logits,
        maps,
        boxes_of(batch)[:num],
        weights=(settings.distillation_weight, settings.weight),
        distillation_temperature=settings.distillation_temperature,
        temperature=settings.temperature,
        size=(16, 16),
        negatives=settings.negatives,
        extra=extra,
    )


@sampled(one_in=2)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"negatives": False},
        {"contrast": "weighted"},
        {"negatives": False, "contrast": "weighted"},
        {"mode": "train"},
        {"explainer": "gradient_times_input"},
        {"views_share": 0.6},
        {"views_share": 0.25, "negatives": False},
    ],
    ids=str,
)
def test_the_step_is_its_equation(options):
    """Loss to 1e-8 and every gradient to 1e-6, of a network that is no longer its teacher."""
    settings, classifier, batch = replace(BASE, **options), make_classifier(), make_batch()
    (phase,) = plan_of(settings, classifier).phases
    phase.begin(0)
    teacher = copy.deepcopy(classifier.network).eval()
    network = moved(classifier)
    phase.step(batch)  # the first call verifies the closed form
    reference = copy.deepcopy(network).requires_grad_().train(settings.mode == "train")
    output = phase.step(batch)
    expected = by_hand(reference, teacher, batch, settings)
    torch.testing.assert_close(output.loss, expected, rtol=1e-8, atol=1e-10)
    logs = output.logs
    torch.testing.assert_close(logs["loss"], 1.3 * logs["distillation"] + 0.7 * logs["consistency"])
    output.loss.backward()
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)
    assert all(parameter.grad is None for parameter in phase.step.teacher.parameters())


@pytest.mark.parametrize(("share", "keep_gib"), crossed([0.5, 1.0], [0.0, 1.0], one_in=2))
def test_incomplete_images_are_held_as_the_others(share, keep_gib):
    """The divergences are added up, and divided by how many rows there are in the mean; a period draws anew."""
    settings = replace(BASE, incomplete=share, trained=("features.1", "features.2", "fc"), keep_gib=keep_gib)
    classifier, batch = make_classifier(), replace(make_batch(6), indices=torch.tensor([7, 0, 3, 1, 4, 2]))
    (phase,) = plan_of(settings, classifier, augmentation=Augmentation(period=2)).phases
    teacher, first = copy.deepcopy(classifier.network).eval(), classifier.network.features[0]
    begun = copy.deepcopy(first.state_dict())
    network = moved(classifier)
    first.load_state_dict(begun)  # the trunk, which stays
    losses = []
    for epoch in (0, 1, 2, 3):
        phase.begin(epoch)
        found = phase.step(batch)
        chosen = drawn([7, 0, 3, 1, 4, 2], share, seed=0, draw=epoch % 2)
        assert 0 < len(chosen) <= (6 if share == 1 else 5)
        numbers = [number for number, _ in chosen]
        parts = incomplete(batch.images[numbers] * 4 - 2, [generator for _, generator in chosen])
        logits, maps = outputs(network, batch)
        theirs = outputs(teacher, batch)[0]
        options = {"weights": (0.0, 0.7), "distillation_temperature": 2.0, "temperature": 0.4, "size": (16, 16)}
        expected = oracle.loss(theirs.detach(), logits, maps, boxes_of(batch), negatives=True, **options)
        rows = [(theirs, logits), (teacher(parts), network(parts))]
        sums = [len(own) * oracle.distillation(taught.detach(), own, 2.0) for taught, own in rows]
        expected = expected + 1.3 * sum(sums) / (12 + 6 * share)
        torch.testing.assert_close(found.loss, expected, rtol=1e-8, atol=1e-10)
        losses.append(found.loss.item())
    assert losses[2] == pytest.approx(losses[0], rel=1e-12)
    assert losses[1] != pytest.approx(losses[0], rel=1e-6)
    kept = {view for _, view in phase.step.trunk._rows}
    assert kept == (set() if keep_gib == 0 else {-1, 2, 3}), "plain images, and two draws of incomplete ones"


def test_a_part_of_an_incomplete_image_is_blurred():
    images = torch.rand(64, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    chosen = drawn(range(64), 1.0, seed=3, draw=0)
    found, blurred = incomplete(images, [generator for _, generator in chosen]), gaussian_blur(images)
    hidden = (found != images).any(1)
    assert torch.equal(found, torch.where(hidden[:, None], blurred, images))
    shares = hidden.float().mean((1, 2))
    assert shares.min() < 0.1
    assert shares.max() > 0.9
    assert 0.4 < shares.mean() < 0.6
    change = (hidden[:, :, 1:] != hidden[:, :, :-1]).float().mean()
    assert change < 0.05, "parts hang together"
    again = incomplete(images[5:6], [drawn([5], 1.0, seed=3, draw=0)[0][1]])
    assert torch.equal(again[0], found[5])
    numbers = [number for number, _ in drawn(range(2000), 0.3, seed=0, draw=1)]
    assert 540 < len(numbers) < 660
    assert numbers != [number for number, _ in drawn(range(2000), 0.3, seed=0, draw=2)]


def test_a_teacher_that_follows_and_a_queue():
    settings, classifier, batch = replace(BASE, teacher_decay=0.75, queue=20), make_classifier(), make_batch()
    (phase,) = plan_of(settings, classifier).phases
    phase.begin(0)
    step, teacher = phase.step, copy.deepcopy(classifier.network).eval()
    network = moved(classifier)
    step(make_batch(seed=5))
    step.after_step(1)
    for own, value in zip(teacher.parameters(), network.parameters(), strict=True):
        own.data = 0.75 * own.data + 0.25 * value.data
    for own, value in zip(teacher.buffers(), network.buffers(), strict=True):
        own.data = value.data.clone()
    earlier = outputs(network, make_batch(seed=5))[1].chunk(2)[1].detach()
    expected = by_hand(network, teacher, batch, settings, extra=earlier)
    torch.testing.assert_close(step(batch).loss, expected, rtol=1e-8, atol=1e-10)
    assert len(step.queue) == 8


def maps_for(network, images, target=None, contrast=None):
    activation = network.features(images * 4 - 2)
    logits = network.fc(activation.mean((2, 3)))
    target = logits.argmax(1) if target is None else target
    score = logits.gather(1, target[:, None])[:, 0]
    if contrast == "weighted":
        score = score - logits.scatter(1, target[:, None], -torch.inf).logsumexp(1)
    (gradient,) = torch.autograd.grad(score.sum(), activation, create_graph=True)
    return logits, (gradient * activation).sum(1), target


E2KD = replace(BASE, compared_with="teacher", negatives=False)


@sampled(one_in=2)
@pytest.mark.parametrize("compared_with", ["teacher", "teacher-plain"])
@pytest.mark.parametrize("contrast", [None, "weighted"])
def test_e2kd_is_its_equation(compared_with, contrast):
    settings = replace(E2KD, compared_with=compared_with, contrast=contrast)
    classifier, batch = make_classifier(), make_batch()
    (phase,) = plan_of(settings, classifier).phases
    phase.begin(0)
    teacher = copy.deepcopy(classifier.network).eval()
    network = moved(classifier)
    with torch.no_grad():  # a network with another top class
        network.fc.bias[0] += 1
    output = phase.step(batch)
    (view,), from_plain = batch.views, compared_with == "teacher-plain"
    theirs, teachers_maps, target = maps_for(teacher, batch.images if from_plain else view.pixels, contrast=contrast)
    logits, maps, _ = maps_for(network, view.pixels, target, contrast)
    assert (logits.argmax(1) != target).any()
    boxes = boxes_of(batch) if from_plain else [(0, 0, 16, 16, False)] * len(batch)
    options = {"weights": (1.3, 0.7), "temperature": 2.0, "size": (16, 16)}
    expected = oracle.e2kd(theirs.detach(), logits, teachers_maps.detach(), maps, boxes, **options)
    torch.testing.assert_close(output.loss, expected, rtol=1e-8, atol=1e-10)
    output.loss.backward()
    for parameter, gradient in zip(
        network.parameters(), torch.autograd.grad(expected, list(network.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)
    assert output.logs["agreement"] == (logits.argmax(1) == target).double().mean()


def test_e2kd_of_the_same_view_begins_with_nothing_to_learn():
    same, moved_maps = (
        training_step(make_classifier(), replace(E2KD, compared_with=name)).eval()(make_batch()).logs["consistency"]
        for name in ("teacher", "teacher-plain")
    )
    assert abs(same) < 1e-7
    assert moved_maps > 1e-3


def test_e2kd_has_labels_of_the_view():
    batch, settings = make_batch(), replace(E2KD, label_weight=0.3, views="transformed")
    plain, found = (training_step(make_classifier(), one).eval()(batch) for one in (E2KD, settings))
    expected = F.cross_entropy(maps_for(make_classifier().network.eval(), batch.views[0].pixels)[0], batch.labels)
    torch.testing.assert_close(found.loss, plain.loss + 0.3 * expected)


@pytest.mark.parametrize("beside", [False, True])
def test_labels_add_their_cross_entropy(beside):
    """Of the same images, or of labelled ones beside them, which have nothing else."""
    batch = two_batches() if beside else make_batch()
    without, with_labels = (
        training_step(make_classifier(), replace(BASE, label_weight=weight, views="plain")).eval()
        for weight in (0.0, 0.3)
    )
    expected = F.cross_entropy(outputs(make_classifier().network.eval(), batch)[0][: len(batch)], batch.labels)
    plain, found = without(batch), with_labels(batch)
    torch.testing.assert_close(found.loss, plain.loss + 0.3 * expected)
    assert "accuracy" in found.logs
    assert plain.logs["agreement"] == 1
    changed = replace(batch, labels=(batch.labels + 1) % 3)
    assert without(changed).loss == plain.loss
    assert with_labels(changed).loss != found.loss


def test_agreement_is_that_of_the_plain_images():
    classifier, batch = make_classifier(), make_batch(16)
    step = training_step(classifier, BASE).eval()
    logits = outputs(classifier.network, batch)[0][:16].detach()
    last = logits.argmin(1)[0]
    behind = (logits.max(1).values - logits[:, last]).sort().values
    with torch.no_grad():  # the class that was last becomes the first of four images, or of their views too
        classifier.network.fc.bias[last] += (behind[3] + behind[4]) / 2
    assert behind[3] > 0
    assert step(batch).logs["agreement"] == 12 / 16


# --- the loss of the logits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_its_equation_and_teaches_the_student_alone(temperature):
    logits, theirs = 3 * torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    student, teacher = logits.requires_grad_(), theirs.requires_grad_()
    loss = distillation_loss(student, teacher, temperature=temperature)
    torch.testing.assert_close(loss, oracle.distillation(teacher.detach(), student, temperature))
    loss.backward()
    p, q = (y.detach().div(temperature).softmax(1) for y in (teacher, student))
    torch.testing.assert_close(student.grad, temperature * (q - p) / 5)
    assert teacher.grad is None


def test_distillation_refuses():
    for shapes, message in (
        (((2, 3), (2, 4)), r"must have one shape \[N,K\] with N >= 1, got \[2, 3\] and \[2, 4\]"),
        (((0, 3), (0, 3)), r"with N >= 1, got \[0, 3\]"),
        (((2, 1), (2, 1)), "its loss is 0 for a network of one logit"),
    ):
        with pytest.raises(ArgumentError, match=message):
            distillation_loss(*map(torch.zeros, shapes))
    with pytest.raises(ArgumentError, match="`temperature` must be positive, got 0"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0)


# --- what is trained, and in which mode -----------------------------------------------------------------------------


def plan_of(settings, classifier=None, **options):
    recipe = Recipe("retrofit", Digits(), Model("contrex:convnet"), settings, training=Training(epochs=3), **options)
    return training_plan(classifier or make_classifier(), recipe)


def names_trained(network, trained):
    (phase,) = plan_of(replace(BASE, trained=trained), replace(make_classifier(), network=network)).phases
    own = set(phase.parameters)
    assert own | set(phase.held) == set(network.parameters())
    assert own.isdisjoint(phase.held)
    return [name for name, parameter in network.named_parameters() if parameter in own]


@pytest.mark.parametrize(
    ("trained", "beginnings"),
    [
        (("last-stage",), ("features.1.", "features.2.", "fc.")),
        (("head",), ("fc.",)),
        (("all",), ("features.", "fc.")),
        (("features.0", "head"), ("features.0.", "fc.")),
    ],
)
def test_the_trained_part_is_what_it_is_called(trained, beginnings):
    network = make_classifier().network
    names = [name for name, _ in network.named_parameters()]
    assert names_trained(network, trained) == [name for name in names if name.startswith(beginnings)]


def test_the_last_stage_of_a_transformer_is_its_last_blocks():
    network = build_network(
        "timm:vit_tiny_patch16_224", {"depth": "4", "embed_dim": "12", "num_heads": "3", "img_size": "32"}
    )
    found = names_trained(network, ("last-stage",))
    assert {name.split(".")[0] for name in found} == {"blocks", "norm", "head"}
    assert {name.split(".")[1] for name in found if name.startswith("blocks")} == {"3"}


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("timm:mobilenetv2_100", "blocks.5.0.conv_pw.weight"),
        ("torchvision:squeezenet1_1", "features.9.squeeze.weight"),  # behind a pooling; no linear classifier
        ("torchvision:vgg16", "features.24.weight"),  # not behind the last pooling, where no convolution is
    ],
)
def test_the_last_stage_begins_where_the_map_gets_its_size(name, first):
    with torch.device("meta"):
        network = build_network(name, {})
    found, names = set(last_stage(network)), [name for name, _ in network.named_parameters()]
    own = [name for name, parameter in network.named_parameters() if parameter in found]
    assert own == names[names.index(first) :]


def test_the_last_stage_of_a_network_without_stages_is_all_of_it():
    network = TokenNet()
    assert last_stage(network) == list(network.parameters())


def test_a_transformer_takes_a_step():
    torch.manual_seed(0)
    classifier = replace(make_classifier(), network=TokenNet().double())
    (phase,) = plan_of(replace(BASE, trained=("block", "head")), classifier).phases
    phase.begin(0)
    moved(classifier)
    output = phase.step(make_batch())
    output.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in phase.parameters)
    assert all(parameter.grad is None for parameter in phase.held)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_modes(mode):
    """In eval mode no statistics move and dropout is off; in train mode that holds for what is not trained."""
    classifier = make_classifier()
    classifier.network.fc = nn.Sequential(nn.Dropout(), classifier.network.fc)
    (phase,) = plan_of(replace(BASE, trained=("features.1", "fc"), mode=mode), classifier).phases
    for _ in range(2):
        phase.begin(0)
        is_training = mode == "train"
        below, above = (classifier.network.features[place] for place in (0, 1))
        assert not any(module.training for module in (*below.modules(), *phase.step.teacher.modules()))
        assert {module.training for module in (*above.modules(), *classifier.network.fc)} == {is_training}
        before = copy.deepcopy(list(classifier.network.buffers()))
        phase.step(make_batch())
        same = [torch.equal(a, b) for a, b in zip(before, classifier.network.buffers(), strict=True)]
        assert same == [True] * 3 + [not is_training] * 3 + [True] * 3


def test_what_is_refused():
    with pytest.raises(ArgumentError, match=r"`method.views_share` 0.5 leaves out views, and `method.compared_with`"):
        replace(E2KD, views_share=0.5)
    with pytest.raises(
        ArgumentError, match=r"`method.incomplete` 0.5 would move the statistics .*`method.mode` is train"
    ):
        replace(BASE, incomplete=0.5, mode="train")
    with pytest.raises(ArgumentError, match=r"`method.incomplete` 0.5 is held beside CGC's views"):
        replace(E2KD, incomplete=0.5)
    with pytest.raises(ArgumentError, match=r"`method.incomplete` must be a share, from 0 to 1, got 1.5"):
        replace(BASE, incomplete=1.5)
    recipes = [
        ({"trained": ("features.7",)}, UnknownNameError, r"`method.trained` must be one of"),
        ({"trained": ("features.1.2",)}, ArgumentError, r"`method.trained` features.1.2 has no parameters"),
        ({"explainer": "rise"}, ArgumentError, "`method.explainer` rise has no differentiable map"),
        ({"explainer": "gradcam"}, UnknownNameError, "must be one of"),
    ]
    for options, kind, message in recipes:
        with pytest.raises(kind, match=message):
            plan_of(replace(BASE, **options))
    squeezenet = replace(make_classifier(), network=build_network("torchvision:squeezenet1_1", {"num_classes": "3"}))
    with pytest.raises(LayerError, match=r"`method.trained` head is the network's last linear layer"):
        plan_of(replace(BASE, trained=("head",)), squeezenet)
    with pytest.raises(ArgumentError, match=r"`method.label_weight` 0 learns nothing from the images with labels"):
        plan_of(BASE, labelled=Labelled(share=0.5, rest="unlabelled"))
    with pytest.raises(ArgumentError, match=r"`method.trained` names nothing"):
        replace(BASE, trained=())
    with pytest.raises(ArgumentError, match=r"`method.queue` 5 holds negatives, and `method.negatives` says"):
        replace(BASE, queue=5, negatives=False)
    with pytest.raises(ArgumentError, match=r"`method.tolerance` 99 compares with the network as it was"):
        replace(BASE, tolerance=99, teacher_decay=0.9)
    with pytest.raises(ArgumentError, match=r"`method.rescale` True compares with the network as it was"):
        replace(BASE, rescale=True, teacher_decay=0.9)
    with pytest.raises(ArgumentError, match=r"`method.compared_with` teacher has no negatives: add `--method.no-neg"):
        replace(BASE, compared_with="teacher")
    with pytest.raises(ArgumentError, match=r"`method.variant` published-code is CGC's, and `method.compared_with` is"):
        replace(E2KD, variant="published-code")
    with pytest.raises(ArgumentError, match=r"sees the transformed images alone, and `method.views` is both: set it"):
        replace(E2KD, label_weight=1.0)
    with pytest.raises(ArgumentError, match=r"`method.teacher_decay` must be from 0 to below 1, or None, got 1"):
        replace(BASE, teacher_decay=1.0)
