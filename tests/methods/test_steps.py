from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from contrex.data.views.batch import Batch, View
from contrex.data.views.company import Company
from contrex.errors import ArgumentError, UnknownNameError
from contrex.methods import METHODS, training_plan, training_step
from contrex.models import Classifier
from contrex.models.convnet import ConvNet
from contrex.ops.geometry import Crop, random_crop, warp_images
from contrex.records import to_plain
from contrex.settings import CGC, CGCNoNegatives, CrossEntropy, Digits, Labelled, Model, Recipe, Training
from oracles import consistency as oracle
from sampling import crossed, sampled

CPU = torch.device("cpu")


def make_classifier():
    torch.manual_seed(4)
    return Classifier(ConvNet(3, widths=(4, 6), strides=(2, 2)).double(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def company_of(num, generator):
    cells = torch.randint(4, (num,), generator=generator)
    partners = torch.rand(3 * num, 3, 16, 16, generator=generator, dtype=torch.float64)
    return Company(None, View(partners, Crop.identity(3 * num, 16)), cells)


def make_batch(num=4, *, num_views=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(num, 3, 16, 16, generator=generator, dtype=torch.float64)
    crops = [
        random_crop(num, 16, scale=(0.3, 1.0), ratio=(0.75, 1.33), flip=0.5, generator=np.random.default_rng([seed, i]))
        for i in range(2)
    ]
    return Batch(
        images=images,
        views=tuple(View(warp_images(images, crop), crop) for crop in crops[:num_views]),
        labels=torch.randint(3, (num,), generator=generator),
        paths=[f"{i}.png" for i in range(num)],
        company=company_of(num, generator),
        boxes=[np.array([[2, 1, 9, 13]], np.float32)] * (num - 1) + [np.zeros((0, 4), np.float32)],
    )


def by_hand(network, batch, *, weight, variant, contrast, negatives, num_views=None, of_label=False):
    """The step's loss from the papers' equations: autograd for the maps, loops for the consistency. Only the first
    `num_views` images have their view, where that is given."""
    n, num = len(batch), num_views or len(batch)
    x = torch.cat([batch.images, batch.views[0].pixels[:num]]) * 4 - 2
    activation = network.features(x)
    logits = network.fc(activation.mean((2, 3)))
    target = batch.labels if of_label else logits[:n].argmax(1)
    target = torch.cat([target, target[:num]])
    score = logits.gather(1, target[:, None])[:, 0]
    if contrast == "weighted":
        score = score - logits.scatter(1, target[:, None], -torch.inf).logsumexp(1)
    (gradient,) = torch.autograd.grad(score.sum(), activation, create_graph=True)
    maps = (gradient * activation).sum(1)
    crop = batch.views[0].crop
    sides = (crop.top, crop.left, crop.height, crop.width, crop.flip)
    boxes = list(zip(*(side.tolist()[:num] for side in sides), strict=True))
    if negatives:
        term = oracle.cgc_losses(maps[:num], maps[n:], boxes, size=(16, 16), temperature=0.5, variant=variant).mean()
    else:
        term = oracle.l2_loss(maps[:num], maps[n:], boxes, (16, 16)) / (1 if variant == "paper" else 16 * 16)
    if variant == "paper":
        entropy = F.cross_entropy(logits, torch.cat([batch.labels, batch.labels[:num]]))
    else:
        extra = network.fc(network.features(batch.views[1].pixels * 4 - 2).mean((2, 3)))
        entropy = sum(F.cross_entropy(y, batch.labels) for y in (extra, logits[:n], logits[n:]))
    return entropy + weight * term


@pytest.mark.parametrize("settings", [CGC(resolution=16), CGC(contrast="weighted"), CGCNoNegatives(resolution=16)])
def test_consistency_costs_hardly_more_than_cross_entropy_on_both_views(settings):
    """With a linear classifier: heatmaps and their gradient are no further passes through the network."""
    batch, network = make_batch(), ConvNet(3, widths=(32, 64), strides=(2, 2)).double()
    classifier = replace(make_classifier(), network=network)
    step = training_step(classifier, settings)
    step(batch)  # the first call verifies the closed form
    with FlopCounterMode(display=False) as ours:
        step(batch).loss.backward()
    with FlopCounterMode(display=False) as plain:
        logits = network(torch.cat([batch.images, batch.views[0].pixels]))
        F.cross_entropy(logits, batch.labels.repeat(2)).backward()
    assert ours.get_total_flops() <= 1.02 * plain.get_total_flops()


@pytest.mark.parametrize(
    ("training", "negatives", "variant", "contrast"),
    crossed([True, False], [True, False], ["paper", "published-code"], [None, "weighted"], one_in=2),
)
def test_consistency_steps_are_their_equations(negatives, variant, contrast, training):
    """Loss to 1e-8 and every parameter's gradient to 1e-6: the double backward through the map is right."""
    settings = (CGC if negatives else CGCNoNegatives)(weight=0.7, variant=variant, contrast=contrast, resolution=16)
    batch, classifier = make_batch(num_views=1 + (variant == "published-code")), make_classifier()
    step = training_step(classifier, settings).train(training)
    step(batch)  # the first call verifies the closed form
    reference = make_classifier().network.train(training)
    reference.load_state_dict(classifier.network.state_dict())
    options = {"variant": variant, "contrast": contrast, "negatives": negatives}
    output = step(batch)
    expected = by_hand(reference, batch, weight=0.7, **options)
    torch.testing.assert_close(output.loss, expected, rtol=1e-8, atol=1e-10)
    output.loss.backward()
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    for parameter, gradient in zip(classifier.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


@sampled(one_in=3)
@pytest.mark.parametrize("negatives", [True, False])
@pytest.mark.parametrize(("share", "num_views"), [(0.2, 2), (0.5, 4), (1.0, 8)])
def test_a_share_of_the_views(negatives, share, num_views):
    """The first images alone have a view: their heatmaps are compared, the others are classified."""
    settings = (CGC if negatives else CGCNoNegatives)(weight=0.7, resolution=16, views_share=share)
    batch, classifier = make_batch(8), make_classifier()
    step = training_step(classifier, settings)
    step(batch)  # the first call verifies the closed form
    reference = make_classifier().network
    reference.load_state_dict(classifier.network.state_dict())
    options = {"variant": "paper", "contrast": None, "negatives": negatives, "num_views": num_views}
    output, expected = step(batch), by_hand(reference, batch, weight=0.7, **options)
    torch.testing.assert_close(output.loss, expected, rtol=1e-8, atol=1e-10)
    output.loss.backward()
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    for parameter, gradient in zip(classifier.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [CGC, CGCNoNegatives])
def test_the_label_explained(kind):
    batch, classifier = make_batch(6), make_classifier()
    step = training_step(classifier, kind(resolution=16, explained="label"))
    step(batch)  # the first call verifies the closed form
    settings = {"contrast": None, "weight": 1.0, "negatives": kind is CGC, "variant": "paper"}
    assert classifier.network(batch.images * 4 - 2).argmax(1).ne(batch.labels).any()
    found, expected = step(batch).loss, by_hand(classifier.network, batch, of_label=True, **settings)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert (found - by_hand(classifier.network, batch, **settings)).abs() > 1e-4
    with pytest.raises(ArgumentError, match=r"`method.explained` label: the images that are explained have no"):
        step.plan(Recipe("few", Digits(), Model(), step.settings, labelled=Labelled(per_class=1, rest="unlabelled")))


@pytest.mark.parametrize("views", ["both", "plain"])
def test_before_the_consistency_there_is_the_cross_entropy_alone(views):
    batch, classifier = make_batch(6), make_classifier()
    step = training_step(classifier, CGC(resolution=16, consistency_after=0.5, views=views)).eval()
    with pytest.raises(ArgumentError, match=r"`method.consistency_after` 0.5 is a share of the epochs of a run, and"):
        step(batch)
    step.plan(Recipe("half", Digits(), Model(), step.settings, training=Training(epochs=5)))
    baseline = training_step(classifier, CrossEntropy(views=views)).eval()
    for epoch in (0, 1):
        step.begin_epoch(epoch)
        output = step(batch)
        assert output.loss.equal(baseline(batch).loss)
        assert "consistency" not in output.logs
    step.begin_epoch(2)
    always = training_step(classifier, CGC(resolution=16, views=views)).eval()
    assert step(batch).loss.equal(always(batch).loss)


def test_a_share_of_the_views_costs_as_much_less():
    counts = []
    network = ConvNet(3, widths=(32, 64), strides=(2, 2)).double()
    for share in (0.25, 1.0):
        step = training_step(replace(make_classifier(), network=network), CGC(resolution=16, views_share=share))
        step(make_batch(8))
        with FlopCounterMode(display=False) as counter:
            step(make_batch(8)).loss.backward()
        counts.append(counter.get_total_flops())
    assert counts[0] / counts[1] == pytest.approx(10 / 16, abs=0.02)


@pytest.mark.parametrize("views", ["both", "plain", "transformed"])
def test_cross_entropy_step(views):
    batch, classifier = make_batch(), make_classifier()
    step = training_step(classifier, CrossEntropy(views=views)).eval()
    logits, logits_view = (classifier.network(x * 4 - 2) for x in (batch.images, batch.views[0].pixels))
    entropies = [F.cross_entropy(y, batch.labels) for y in (logits, logits_view)]
    expected = {"plain": entropies[0], "transformed": entropies[1], "both": sum(entropies) / 2}[views]
    output = step(batch)
    torch.testing.assert_close(output.loss, expected)
    if views != "transformed":
        assert output.logs["accuracy"] == (logits.argmax(1) == batch.labels).double().mean()


def test_cross_entropy_with_deletions_loses_a_cell_of_some_images():
    batch, classifier = make_batch(32), make_classifier()
    seen = []
    classifier.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    step = training_step(classifier, CrossEntropy(deletions=0.5, deletion_grid=4)).eval()
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        step(batch)
    plain = torch.cat([batch.images, batch.views[0].pixels]) * 4 - 2
    first, again, other = seen
    assert torch.equal(first, again), "drawn from the seed of the step"
    assert not torch.equal(first, other)
    lost = first != plain
    num_pixels = lost.any(1).flatten(1).sum(1)
    assert set(num_pixels.tolist()) == {0, 16}, "one cell of 4 x 4 pixels, or none"
    assert 20 < (num_pixels > 0).sum() < 44
    assert (first[lost] == 0).all(), "the mean colour is zero to the network"
    with pytest.raises(ArgumentError, match=r"`method.deletions` must be a share of the images, from 0 to 1"):
        CrossEntropy(deletions=2.0)
    assert to_plain(CrossEntropy()) == {"kind": "CrossEntropy", "views": "both"}, "as earlier checkpoints have it"


OPTIONS = {
    "cgc": {"resolution": 16},
    "cgc_no_negatives": {"resolution": 16},
    "retrofit": {"resolution": 16, "trained": ("all",), "mode": "train"},  # nothing of a random network is to be kept
}


def plan_of(method, classifier=None):
    settings = METHODS[method](**OPTIONS.get(method, {}))
    recipe = Recipe(method, Digits(), Model("contrex:convnet"), settings, training=Training(epochs=3))
    return training_plan(classifier or make_classifier(), recipe)


def seen_by(step, **options):
    return make_batch(num_views=step.wants.views, **options)


@sampled(one_in=3)
@pytest.mark.parametrize("method", METHODS)
def test_steps_move_every_parameter_of_theirs_and_log_their_terms(method):
    for phase in plan_of(method).phases:
        phase.begin(0)
        output = phase.step(seen_by(phase.step))
        output.loss.backward()
        assert all(parameter.grad is not None for parameter in phase.parameters)
        own = {id(parameter) for parameter in phase.parameters}
        assert all(parameter.grad is None for parameter in phase.step.parameters() if id(parameter) not in own)
        assert "loss" in output.logs
        assert not any(value.requires_grad for value in output.logs.values())
        phase.step.zero_grad()
        if "cgc" in method or method == "gcc":
            weight, logs = METHODS[method]().weight, output.logs
            torch.testing.assert_close(logs["loss"], logs["cross_entropy"] + weight * logs["consistency"])


# A linear layer on the features of a random network learns little: `test_bce_head` asks for as much as there is.
@pytest.mark.parametrize("method", crossed([name for name in METHODS if name != "bce_head"], one_in=5))
def test_steps_learn(method):
    for phase in plan_of(method).phases:
        phase.begin(0)
        batch = seen_by(phase.step, num=16)
        optimizer = torch.optim.SGD(phase.parameters, lr=0.5 if phase.name == "classifier" else 0.1)
        losses = []
        for _ in range(40 if phase.name else 30):
            optimizer.zero_grad()
            loss = phase.step(batch).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]


def test_queue_holds_the_newest_maps_and_travels_in_the_state():
    step = training_step(make_classifier(), CGC(queue=6, resolution=16))
    without = training_step(make_classifier(), CGC(resolution=16))
    first, second = make_batch(seed=1), make_batch(seed=2)
    torch.testing.assert_close(step(first).loss, without(first).loss)
    newest = step.queue.clone()
    assert len(newest) == 4
    assert step(second).loss > without(second).loss
    assert len(step.queue) == 6
    torch.testing.assert_close(step.queue[4:], newest[:2])
    assert not step.queue.requires_grad
    restored = training_step(make_classifier(), CGC(queue=6, resolution=16))
    restored.load_state_dict(step.state_dict())
    torch.testing.assert_close(restored.queue, step.queue)
    held = step.queue.clone()
    step.eval()(first)
    torch.testing.assert_close(step.queue, held)


def test_steps_refuse():
    for kind in (CGC, CGCNoNegatives):
        with pytest.raises(ArgumentError, match=r"`method.views_share` 0.5 leaves out views that `method.variant` pub"):
            kind(views_share=0.5, variant="published-code")
        with pytest.raises(
            ArgumentError, match=r"`method.consistency_after` 0.5 begins with one cross-entropy, and `meth"
        ):
            kind(consistency_after=0.5, variant="published-code")
    batch = make_batch()
    with pytest.raises(UnknownNameError, match=r"`method.contrast` must be one of"):
        training_step(make_classifier(), CGC(contrast="weigthed"))(batch)
    with pytest.raises(UnknownNameError, match="`layer` of ConvNet"):
        training_step(make_classifier(), CGC(layer="layer4"))
    unmoved = Batch(batch.images, batch.labels, batch.paths, (View(None, batch.views[0].crop),))
    with pytest.raises(ArgumentError, match=r"call `batch.to"):
        training_step(make_classifier(), CGC())(unmoved)


@pytest.mark.parametrize("method", crossed(METHODS, one_in=2))
def test_steps_run_under_ddp(method, tmp_path):
    """Two optimiser steps inside DDP (one gloo process): no unused parameter, and the gradient of the plain step."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        for plain, wrapped in zip(plan_of(method).phases, plan_of(method).phases, strict=True):
            plain.begin(0)
            wrapped.begin(0)
            wrapped.step.load_state_dict(plain.step.state_dict())
            ddp = DistributedDataParallel(wrapped.step)
            for seed in (0, 1):
                for module in (plain.step, ddp):
                    module.zero_grad()
                    module(seen_by(plain.step, seed=seed)).loss.backward()
                for a, b in zip(plain.parameters, wrapped.parameters, strict=True):
                    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-14)
    finally:
        dist.destroy_process_group()


def test_steps_run_under_bfloat16_autocast():
    classifier = make_classifier()
    classifier.network.float()
    batch = make_batch()
    (view,) = batch.views
    view = replace(view, pixels=view.pixels.float())
    batch = Batch(batch.images.float(), batch.labels, batch.paths, (view,))
    step = training_step(classifier, CGC(resolution=16)).eval()
    exact = step(batch).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = step(batch)
    assert output.loss.dtype == torch.float32
    assert abs(output.loss - exact) < 0.05 * exact


@pytest.mark.parametrize("method", ["cross_entropy", "cgc", "cgc_no_negatives", "gcc"])
@pytest.mark.parametrize("variant", ["paper", "published-code"])
def test_one_logit_is_no_softmax_to_train(method, variant):
    """Its cross-entropy is 0 whatever the network says."""
    options = METHODS[method]()
    if hasattr(options, "variant"):
        options = replace(options, variant=variant)
    single = Classifier(ConvNet(1, widths=(4, 6), strides=(2, 2)).double(), (0.5,) * 3, (0.25,) * 3)
    batch = replace(make_batch(num_views=2), labels=torch.zeros(4, dtype=torch.long))
    with pytest.raises(ArgumentError, match="which is 0 for a network of one logit, whatever it says: give it two"):
        training_step(single, options)(batch)
