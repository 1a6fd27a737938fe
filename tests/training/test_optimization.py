import pytest
import torch
from torch import nn

from contrex.settings import Optimizer, Schedule
from contrex.training.optimization import build_optimizer, learning_rate, take_step


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
    assert take_step(optimizer, lr=0.5, clip_norm=clip)
    assert weight.detach().norm().item() == pytest.approx(0.5 * expected, rel=1e-4)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_no_step_along_what_is_not_finite(clip):
    """A square root at 0 has a finite value and no finite gradient; a loss may be NaN where its gradient is not."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    for loss, along in ((weight.sum().sqrt(), True), (weight.sum() * torch.nan, True), (weight.sum(), False)):
        optimizer.zero_grad()
        loss.backward()
        assert not take_step(optimizer, lr=0.5, clip_norm=clip, along=along)
        assert weight.tolist() == [0.0, 0.0]
        assert not optimizer.state
