from dataclasses import replace

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, LayerError
from contrex.methods import training_plan
from contrex.models import load_classifier
from contrex.settings import Digits, LinearClassifier, Model, Optimizer, Recipe, Schedule, SupCon, Training
from contrex.training import read_log, train
from contrex.training.checkpoint import Checkpoints
from contrex.training.optimization import build_optimizer, learning_rate, learning_rates, take_step
from training.runs import quiet, stopped_and_resumed, tiny


def rates(schedule, epochs=4, per_epoch=5):
    return [learning_rate(step, per_epoch, epochs, 0.1, schedule) for step in range(epochs * per_epoch)]


def test_step_schedule_is_torchs():
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
    expected = []
    for _ in range(4):
        expected += [optimizer.param_groups[0]["lr"]] * 5
        optimizer.step()
        theirs.step()
    assert rates(Schedule("step", milestones=(1, 3), gamma=0.5)) == pytest.approx(expected)


def test_cosine_rises_peaks_and_falls():
    found = rates(Schedule("cosine", warmup_epochs=1, final=0.01))
    assert found[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert found[5] == pytest.approx(0.1)
    assert found[5:] == sorted(found[5:], reverse=True)
    assert 0.001 < found[-1] < 0.003
    assert rates(Schedule("constant")) == [0.1] * 20


def test_optimisers_take_their_settings():
    parameters = list(nn.Linear(2, 2).parameters())
    sgd = build_optimizer(parameters, Optimizer(momentum=0.8, nesterov=True, weight_decay=0.3))
    assert {k: sgd.defaults[k] for k in ("momentum", "nesterov", "weight_decay")} == {
        "momentum": 0.8,
        "nesterov": True,
        "weight_decay": 0.3,
    }
    adamw = build_optimizer(parameters, Optimizer("adamw", momentum=0.7, weight_decay=0.2))
    assert adamw.defaults["betas"] == (0.7, 0.999)
    assert adamw.defaults["weight_decay"] == 0.2


@pytest.mark.parametrize(("clip", "expected"), [(None, 10.0), (1.0, 1.0)])
def test_a_step_clips_the_whole_gradient(clip, expected):
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    (weight * torch.tensor([6.0, 8.0])).sum().backward()
    assert take_step(optimizer, rates=[0.5], clip_norm=clip)
    assert weight.detach().norm().item() == pytest.approx(0.5 * expected, rel=1e-4)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_no_step_along_what_is_not_finite(clip):
    """A square root at 0 has a finite value and no finite gradient; a loss may be NaN where its gradient is not."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    for loss, along in ((weight.sum().sqrt(), True), (weight.sum() * torch.nan, True), (weight.sum(), False)):
        optimizer.zero_grad()
        loss.backward()
        assert not take_step(optimizer, rates=[0.5], clip_norm=clip, along=along)
        assert weight.tolist() == [0.0, 0.0]
        assert not optimizer.state


# --- the classifier's own rate --------------------------------------------------------------------------------------


def plan_of(recipe, num_classes=10):
    return training_plan(load_classifier(recipe.model, num_classes=num_classes), recipe)


@pytest.mark.parametrize("optimizer", [Optimizer(lr=0.02, head_lr=5.0), Optimizer("adamw", lr=1e-3, head_lr=0.01)])
def test_the_schedule_scales_both_rates_alike(optimizer):
    schedule = Schedule("step", warmup_epochs=1, milestones=(2, 3), gamma=0.2)
    recipe = replace(tiny(epochs=4), optimizer=optimizer, schedule=schedule)
    (phase,) = plan_of(recipe).phases
    found = [learning_rates(step, 5, phase) for step in range(20)]
    assert [rate["lr"] for rate in found] == rates_of(schedule, optimizer.lr)
    assert [rate["head_lr"] for rate in found] == rates_of(schedule, optimizer.head_lr)
    assert found[0]["head_lr"] == optimizer.head_lr / 5


def rates_of(schedule, peak):
    return [learning_rate(step, 5, 4, peak, schedule) for step in range(20)]


def test_a_step_moves_each_group_at_its_rate():
    trunk, head = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    options = Optimizer(lr=0.5, head_lr=0.25, momentum=0.0, weight_decay=0.0)
    optimizer = build_optimizer([trunk, head], options, [head])
    (trunk.sum() + head.sum()).backward()
    assert take_step(optimizer, rates=[0.1, 2.0], clip_norm=None)
    assert trunk.tolist() == pytest.approx([-0.1] * 2)
    assert head.tolist() == pytest.approx([-2.0] * 3)


@pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.slow), {"name": "adamw", "nesterov": False}])
def test_a_run_has_both_rates_and_is_resumed_with_both(tmp_path, options):
    optimizer = replace(tiny().optimizer, lr=0.01, head_lr=0.2, **options)
    recipe = replace(tiny(), optimizer=optimizer)
    stopped_and_resumed(recipe, tmp_path, steps=(4,))
    found = [line for line in read_log(tmp_path / "straight") if "loss" in line]
    assert all(line["head_lr"] == pytest.approx(20 * line["lr"]) for line in found)
    groups = Checkpoints(tmp_path / "straight").load()["optimizers"][0]["param_groups"]
    assert [len(group["params"]) for group in groups] == [9, 2]
    one = replace(recipe, optimizer=replace(optimizer, head_lr=None), training=replace(recipe.training, epochs=1))
    train(one, tmp_path / "one", console=quiet())
    assert all("head_lr" not in line for line in read_log(tmp_path / "one"))


def test_in_two_phases_it_is_the_rate_of_the_classifier(tmp_path):
    recipe = replace(tiny(epochs=1), method=SupCon(), optimizer=Optimizer(lr=0.01, head_lr=0.5))
    train(recipe, tmp_path, console=quiet())
    found = [{name for name in line if name.endswith("lr")} for line in read_log(tmp_path) if "val_top1" not in line]
    assert found == [{"encoder_lr"}] * 3 + [{"classifier_head_lr"}] * 3


def test_a_rate_of_nothing_is_refused():
    own = replace(tiny(), method=SupCon(classifier=LinearClassifier(Optimizer(lr=0.3))))
    with pytest.raises(ArgumentError, match=r"`optimizer.head_lr` 2.0 moves nothing: .* `method.classifier.optimizer`"):
        plan_of(replace(own, optimizer=Optimizer(head_lr=2.0)))
    recipe = Recipe("r", Digits(), Model("torchvision:squeezenet1_1"), tiny().method, optimizer=Optimizer(head_lr=2.0))
    with pytest.raises(LayerError, match=r"`optimizer.head_lr` is the rate of .*, SqueezeNet ends in Conv2d"):
        plan_of(recipe)


def test_several_classifiers_have_it_all():
    model = Model("timm:deit_tiny_distilled_patch16_224", options={"depth": "1", "img_size": "32"})
    recipe = Recipe("r", Digits(), model, tiny().method, optimizer=Optimizer(head_lr=2.0), training=Training(epochs=1))
    (phase,) = plan_of(recipe).phases
    names = {name for name, p in phase.step.network.named_parameters() if any(p is own for own in phase.head)}
    assert names == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
