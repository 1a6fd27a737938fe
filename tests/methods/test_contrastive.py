"""SupCon, ExCon and ExConB: which views go in, what moves, and what must not."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from contrex.errors import ArgumentError
from contrex.methods import METHODS, ClassifierStep, training_plan, training_step
from contrex.ops import heatmap
from contrex.settings import Digits, ExCon, LinearClassifier, Model, Optimizer, Recipe, Schedule, SupCon, Training
from methods.test_steps import make_batch, make_classifier
from oracles import supcon as oracle
from sampling import sampled


def step_of(settings, *, train=True):
    return training_step(make_classifier(), settings).train(train)


def recipe_of(settings, **others):
    return Recipe("r", Digits(), Model("contrex:convnet"), settings, training=Training(epochs=3), **others)


def embeddings(step, images):
    """Encoder, projection and length by hand; images are normalised."""
    features = step.network.features(images).mean((2, 3))
    return F.normalize(step.projection.out(step.projection.hidden(features).relu()), dim=1)


def by_hand(step, first, second, labels, background=None):
    step = copy.deepcopy(step)  # its batch norms see the views
    views = [first, second] if background is None else [first, second, background]
    found = embeddings(step, torch.cat(views))
    n = len(first)
    pairs = torch.stack([found[:n], found[n : 2 * n]], 1)
    rest = found[2 * n :][:, None].expand(-1, 2, -1)
    return oracle.loss(torch.cat([pairs, rest]).detach(), labels.tolist(), 0.1)


def masked_by_hand(step, batch, threshold=0.5):
    """Grad-CAM of the label by autograd, scaled to 0..1, zero below the threshold; and the network's verdict."""
    network, x = step.network, batch.images * 4 - 2
    was = network.training
    network.eval()
    activation = network.features(x).detach().requires_grad_()
    logits = network.fc(activation.mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.gather(1, batch.labels[:, None]).sum(), activation)
    maps = (gradient.mean((2, 3), keepdim=True) * activation).sum(1).detach()
    large = heatmap.resize(maps, 16)
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    masked = x * ((large - low) / (high - low + 1e-8) > threshold)[:, None]
    with torch.no_grad():
        right = network(masked).argmax(1) == batch.labels
    network.train(was)
    return masked, right


@pytest.fixture
def batch():
    """Images of which some are classified right when masked, and some wrong."""
    return make_batch(8, num_views=2, seed=5)


def test_supcon_contrasts_two_random_views(batch):
    step = step_of(SupCon())
    expected = by_hand(step, batch.views[0].pixels * 4 - 2, batch.views[1].pixels * 4 - 2, batch.labels)
    torch.testing.assert_close(step(batch).loss, expected, rtol=1e-9, atol=1e-12)
    unlabelled = step_of(SupCon(labels=False))
    each_its_own = by_hand(step, batch.views[0].pixels * 4 - 2, batch.views[1].pixels * 4 - 2, torch.arange(8))
    torch.testing.assert_close(unlabelled(batch).loss, each_its_own, rtol=1e-9, atol=1e-12)


@sampled(one_in=2)
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_excon_trains_on_what_the_equations_say(batch, background, threshold):
    step = step_of(ExCon(background=background, threshold=threshold))
    masked, right = masked_by_hand(step, batch, threshold)
    assert 0 < right.sum() < len(right), "choose a batch with both"
    first = torch.where(right[:, None, None, None], masked, batch.views[0].pixels * 4 - 2)
    extra = masked[~right] if background else None
    expected = by_hand(step, first, batch.views[1].pixels * 4 - 2, batch.labels, extra)
    output = step(batch)
    torch.testing.assert_close(output.loss, expected, rtol=1e-7, atol=1e-9)
    assert output.logs["explained"] == right.double().mean()


def test_background_changes_the_loss(batch):
    assert step_of(ExCon())(batch).loss < step_of(ExCon(background=True))(batch).loss


def test_random_views_until_the_starting_epoch(batch):
    step, plain = step_of(ExCon(starting_epoch=2)), step_of(SupCon())
    for epoch, same in ((0, True), (1, True), (2, False)):
        step.begin_epoch(epoch)
        assert (step(batch).loss == plain(batch).loss) == same
        assert ("masked" in step.shown(batch).rows) == (not same)


def test_a_run_that_ends_before_its_starting_epoch_is_refused():
    recipe = Recipe("short", Digits(), Model(), ExCon(starting_epoch=4), training=Training(epochs=4))
    with pytest.raises(
        ArgumentError, match=r"`method.starting_epoch` 4 is never reached in `training.epochs` 4, so th"
    ):
        step_of(recipe.method).plan(recipe)
    longer = replace(recipe, training=Training(epochs=5))
    step_of(recipe.method).plan(longer)


def state_of(step):
    return {name: value.clone() for name, value in step.state_dict().items()}


def test_explaining_leaves_no_trace(batch):
    """Of a whole step in training mode only what its own forward pass of two views leaves: batch-norm statistics."""
    step, plain = step_of(ExCon()), step_of(SupCon())
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    masked, right = step.explained_views(batch)
    assert not masked.requires_grad
    step.shown(batch)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in step.state_dict().items())
    assert all(module.training for module in step.modules())
    assert all(parameter.grad is None for parameter in step.parameters())
    step(batch)
    first = torch.where(right[:, None, None, None], masked, batch.views[0].pixels * 4 - 2)
    plain.contrast(torch.cat([first, batch.views[1].pixels * 4 - 2]), batch.labels)
    for name, value in step.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-10, atol=1e-12)


def test_the_published_code_explains_in_train_mode(batch):
    """Its batch norms see the plain and the masked images too, and the background twice."""
    step = step_of(ExCon(background=True, variant="published-code"))
    before = state_of(step)
    step.explained_views(batch)
    moved = [name for name, value in step.state_dict().items() if not torch.equal(value, before[name])]
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)
    step, once = step_of(ExCon(background=True, variant="published-code")), step_of(ExCon(background=True))
    assert step(batch).loss != once(batch).loss
    assert set(step.shown(batch).rows) == {"image", "view 1", "view 2"}


def test_any_explainer_and_contrast(batch):
    grad_cam = step_of(ExCon())
    for change in ({"explainer": "gradient"}, {"contrast": "weighted"}, {"layer": "features.0"}):
        masked, _ = step_of(ExCon(**change)).explained_views(batch)
        assert not torch.equal(masked, grad_cam.explained_views(batch)[0])


def test_a_permutation_of_the_batch_changes_nothing(batch):
    one, other = step_of(ExCon(background=True)), step_of(ExCon(background=True))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    views = tuple(replace(view, pixels=view.pixels[order]) for view in batch.views)
    shuffled = replace(batch, images=batch.images[order], labels=batch.labels[order], views=views)
    torch.testing.assert_close(one(shuffled).loss, other(batch).loss, rtol=1e-9, atol=1e-12)


def test_the_classifier_sees_the_frozen_encoder(batch):
    plan = training_plan(make_classifier(), recipe_of(SupCon()))
    encoder, linear = plan.phases
    network = linear.step.network
    linear.begin(0)
    assert not network.training
    before = state_of(linear.step)
    logits = network.fc(network.features(batch.views[0].pixels * 4 - 2).mean((2, 3)))
    output = linear.step(batch)
    torch.testing.assert_close(output.loss, F.cross_entropy(logits, batch.labels))
    output.loss.backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, before[name]) for name, value in linear.step.state_dict().items())
    encoder.begin(0)
    assert network.training
    plan.finish()
    assert not network.training
    assert all(parameter.requires_grad for step in plan.modules() for parameter in step.parameters())


def test_orders_and_settings_of_the_phases():
    own, slow = Optimizer(lr=5.0), Schedule("constant")
    first = SupCon(order="encoder-first", classifier=LinearClassifier(optimizer=own, schedule=slow, epochs=2))
    plan = training_plan(make_classifier(), recipe_of(first))
    assert plan.epochs == [[0], [0], [0], [1], [1]]
    assert (plan.phases[1].optimizer, plan.phases[1].schedule, plan.phases[1].epochs) == (own, slow, 2)
    assert plan.epochs_before(4, 1) == 1
    turns = training_plan(make_classifier(), recipe_of(SupCon()))
    assert turns.epochs == [[0, 1]] * 3
    assert turns.phases[1].optimizer == turns.phases[0].optimizer == Optimizer()
    assert [phase.trains_classifier for phase in turns.phases] == [False, True]


def test_colours_are_the_encoders_only():
    recipe = recipe_of(SupCon())
    coloured = replace(recipe.augmentation, color_jitter=(0.4, 0.4, 0.4, 0.1), grayscale=0.2, scale=(0.2, 1.0))
    encoder, linear = training_plan(make_classifier(), replace(recipe, augmentation=coloured)).phases
    assert encoder.augmentation == coloured
    assert linear.augmentation == replace(recipe.augmentation, scale=(0.2, 1.0))


def test_cached_features_are_those_of_the_plain_images(batch, monkeypatch):
    settings = SupCon(order="encoder-first", classifier=LinearClassifier(views="plain", cache_features=True))
    linear = training_plan(make_classifier(), recipe_of(settings)).phases[1]
    linear.begin(0)
    logits = linear.step.network(batch.images * 4 - 2)
    known = replace(batch, indices=torch.arange(8) + 100)
    calls, computed = [], ClassifierStep._computed
    monkeypatch.setattr(ClassifierStep, "_computed", lambda *a: calls.append(1) or computed(*a))
    for _ in range(3):
        torch.testing.assert_close(linear.step(known).loss, F.cross_entropy(logits, batch.labels))
    assert len(calls) == 1
    with pytest.raises(ArgumentError, match="`batch` has no indices"):
        linear.step(batch)


def test_refuses(batch):
    with pytest.raises(
        ArgumentError, match=r"`method.classifier.cache_features` needs `method.classifier.views` plain"
    ):
        LinearClassifier(cache_features=True)
    with pytest.raises(ArgumentError, match=r"`method.classifier.cache_features` needs `method.order` encoder-first"):
        SupCon(classifier=LinearClassifier(views="plain", cache_features=True))
    with pytest.raises(ArgumentError, match=r"`method.classifier.epochs` is for `method.order` encoder-first"):
        SupCon(classifier=LinearClassifier(epochs=3))
    with pytest.raises(ArgumentError, match=r"`method.labels` must be set for ExCon"):
        ExCon(labels=False)
    with pytest.raises(ArgumentError, match=r"`method.threshold` must be from 0 to below 1, got 1"):
        ExCon(threshold=1.0)
    with pytest.raises(ArgumentError, match=r"`method.explainer` rise runs in eval mode only"):
        step_of(ExCon(explainer="rise", variant="published-code"))
    with pytest.raises(
        ArgumentError,
        match="`batch` has 1 of the 2 sets of transformed images that are needed: say so in the step's `wants`",
    ):
        step_of(SupCon())(replace(batch, views=batch.views[:1]))


def test_every_system_of_the_paper_is_a_method():
    assert METHODS["supcon_ori"]().order == "encoder-first"
    assert METHODS["exconb"]().background
    assert not METHODS["simclr"]().labels
