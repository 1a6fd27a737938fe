from __future__ import annotations

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics.gradient_sign import (
    GradientSign,
    GradientSignCurves,
    gradient_sign_curves,
    score_gradient,
    score_gradients,
)
from contrex.ops import scores
from oracles import gradient_sign as slow
from sampling import crossed

MEAN, STD = (0.4, 0.6), (0.2, 0.5)
CONTRASTS = {"original": None, "mean": "mean", "max": "max", "weighted": "weighted"}


class Counting(nn.Module):
    """A small smooth classifier with batch norm and dropout that counts the images it sees without a gradient."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(9, 4)
        ).double()
        self.net[1].running_var.uniform_(0.5, 2)
        self.sizes, self.asked = [], []

    def forward(self, x):
        (self.asked if torch.is_grad_enabled() else self.sizes).append(len(x))
        self.inference = torch.is_inference_mode_enabled()
        return self.net(x)


@pytest.fixture
def model():
    return Counting().train()


@pytest.fixture
def pixels():
    """Images in 0..1, some at the ends."""
    images = torch.rand(5, 2, 2, 4, dtype=torch.float64)
    images[:, :, 0, 0], images[:, :, 1, 1] = 0.0, 1.0
    return images


@pytest.fixture
def images(pixels):
    mean, std = (torch.tensor(v, dtype=torch.float64).view(2, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture
def functions(model):
    return {name: score_gradient(model, contrast) for name, contrast in CONTRASTS.items()}


@pytest.fixture
def options():
    return {"mean": MEAN, "std": STD}


@pytest.mark.parametrize(("num_steps", "clamp"), crossed([1, 3], [True, False], one_in=2))
def test_oracle(clamp, num_steps, model, pixels, images, labels, functions, options):
    target, epsilons = torch.tensor([0, 2, 2, 1, 3]), [0.01, 0.3]
    curves = gradient_sign_curves(
        model, images, labels, functions, epsilons,
        target=target, num_steps=num_steps, clamp=clamp, batch_size=3, **options,
    )  # fmt: skip
    for name, contrast in CONTRASTS.items():
        curve = curves[name]
        for n in range(3):
            for e, epsilon in enumerate(epsilons):
                expected = slow.changes(
                    model.net, pixels[n], int(labels[n]), int(target[n]), contrast, epsilon, num_steps, MEAN, STD, clamp
                )
                actual = (
                    curve.correct_before[n],
                    curve.correct[n, e],
                    curve.logit_change[n, e],
                    curve.probability_change[n, e],
                )
                torch.testing.assert_close(
                    torch.stack(actual), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-8
                )


def test_tensors_equal_functions(model, images, labels, functions, options):
    expected = gradient_sign_curves(model, images, labels, functions, [0.1], **options)
    gradients = {name: function(images, labels) for name, function in functions.items()}
    curves = gradient_sign_curves(model, images, labels, gradients, [0.1], **options)
    assert list(curves) == list(CONTRASTS)
    for name, curve in curves.items():
        assert curve.logit_change.equal(expected[name].logit_change)
        assert curve.correct.equal(expected[name].correct)


@pytest.mark.parametrize("name", CONTRASTS)
def test_score_gradient_is_the_gradient_of_the_score(name, model, images, labels):
    contrast = CONTRASTS[name]
    phi = score_gradient(model, contrast)(images, labels)
    leaf = images.clone().requires_grad_()
    scores.score(model.eval()(leaf), labels, contrast).sum().backward()
    torch.testing.assert_close(phi, leaf.grad)
    assert not phi.requires_grad


def test_gradients_of_all_scores_from_one_forward(model, images, labels, functions, options):
    model.asked.clear()
    first = score_gradients(model, images, labels, CONTRASTS, batch_size=3)
    assert model.asked == [3, 2]
    assert list(first) == list(CONTRASTS)
    for name, function in functions.items():
        torch.testing.assert_close(first[name], function(images, labels))
        assert not first[name].requires_grad
    pairs = {name: (function, first[name]) for name, function in functions.items()}
    for num_steps in (1, 2):
        expected = gradient_sign_curves(model, images, labels, functions, [0.1], num_steps=num_steps, **options)
        model.asked.clear()
        curves = gradient_sign_curves(
            model, images, labels, pairs, [0.1], num_steps=num_steps, **options
        )  # fmt: skip
        assert sum(model.asked) == 4 * 5 * (num_steps - 1)
        for name, curve in curves.items():
            torch.testing.assert_close(curve.logit_change, expected[name].logit_change)
    with pytest.raises(ArgumentError, match=r"`target` must lie in 0..3, got \[0, 1, 2, 3, 4\]"):
        score_gradients(model, images, torch.arange(5), CONTRASTS)
    wrong = {"original": (functions["original"], first["original"][:2])}
    with pytest.raises(ArgumentError, match=r"`gradients\['original'\]` must be \[5, 2, 2, 4\] as the images"):
        gradient_sign_curves(model, images, labels, wrong, [0.1], **options)


def test_each_explanation_moves_what_it_explains(model, images, labels, functions, options):
    """To first order the logit's gradient is the best step for `y_t`, the weighted contrast's for `p_t`."""
    curves = gradient_sign_curves(model, images, labels, functions, [1e-5], clamp=False, **options)
    logit = torch.stack([curve.logit_change for curve in curves.values()])
    probability = torch.stack([curve.probability_change for curve in curves.values()])
    assert (logit[0] >= logit - 1e-9).all()
    assert (probability[3] >= probability - 1e-9).all()
    assert (logit[0] > logit[3] + 1e-7).any()
    assert (probability[3] > probability[0] + 1e-8).any()


def test_by_hand():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    linear[1].weight.data = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    images, labels = torch.tensor([[[[0.5, 0.5]]], [[[0.9, 0.05]]]]), torch.tensor([0, 0])
    phi = {"original": torch.tensor([1.0, -2.0]).expand(2, 1, 1, 2)}
    curve = gradient_sign_curves(linear, images, labels, phi, [0.0, 0.25])["original"]
    # 0.75 - 0.5 = 0.25 instead of -0.5; 1 - 0, clamped, instead of 0.8
    torch.testing.assert_close(curve.logit_change, torch.tensor([[0.0, 0.75], [0.0, 0.2]]).double())
    assert curve.correct_before.tolist() == [0.0, 1.0]
    assert curve.correct.tolist() == [[0.0, 1.0], [1.0, 1.0]]
    free = gradient_sign_curves(linear, images, labels, phi, [0.25], clamp=False)["original"]
    torch.testing.assert_close(free.logit_change, torch.tensor([[0.75], [0.75]]).double())


def test_zero_gradient_moves_nothing(model, images, labels, options):
    curve = gradient_sign_curves(model, images, labels, {"zero": torch.zeros_like(images)}, [0.3], **options)["zero"]
    assert (curve.logit_change.abs() < 1e-14).all()
    assert (curve.probability_change.abs() < 1e-14).all()
    assert curve.correct[:, 0].equal(curve.correct_before)


def test_only_the_sign_matters(model, images, labels, options):
    phi = torch.randn_like(images)
    curves = gradient_sign_curves(model, images, labels, {"a": phi, "b": 1e-20 * phi}, [0.1], **options)
    assert curves["a"].logit_change.equal(curves["b"].logit_change)


@pytest.mark.parametrize("batch_size", crossed([1, 3, 64, 7, 2], one_in=2))
def test_chunks_and_costs(batch_size, model, images, labels, functions, options):
    expected = gradient_sign_curves(model, images, labels, functions, [0.1, 0.2, 0.3], num_steps=2, **options)
    model.sizes.clear()
    model.asked.clear()
    curves = gradient_sign_curves(
        model, images, labels, functions, [0.1, 0.2, 0.3], num_steps=2, batch_size=batch_size, **options
    )
    for name, curve in curves.items():
        torch.testing.assert_close(curve.logit_change, expected[name].logit_change)
    assert sum(model.sizes) == 5 + 4 * 3 * 5
    assert sum(model.asked) == 4 * (5 + 3 * 5)
    assert max(model.sizes + model.asked) <= batch_size


def test_known_logits_save_a_forward(model, images, labels, options):
    phi = {"phi": torch.randn_like(images)}
    expected = gradient_sign_curves(model, images, labels, phi, [0.1], **options)["phi"]
    with torch.no_grad():
        logits = model.eval()(images)
    model.sizes.clear()
    curve = gradient_sign_curves(model, images, labels, phi, [0.1], logits=logits, **options)["phi"]
    assert sum(model.sizes) == 5
    torch.testing.assert_close(curve.probability_change, expected.probability_change)


def test_permuting_the_batch_permutes_the_values(model, images, labels, functions, options):
    order = torch.tensor([3, 0, 4, 1, 2])
    curve = gradient_sign_curves(model, images, labels, functions, [0.1], **options)["max"]
    permuted = gradient_sign_curves(model, images[order], labels[order], functions, [0.1], **options)["max"]
    torch.testing.assert_close(permuted.logit_change, curve.logit_change[order])


def test_leaves_no_trace(model, images, labels, functions, options):
    model.net[1].eval()  # a frozen batch norm in a network that trains
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, rng = images.clone(), torch.get_rng_state()
    curve = gradient_sign_curves(
        model, images.requires_grad_(), labels, functions, [0.1], num_steps=2, **options
    )["weighted"]  # fmt: skip
    assert model.inference
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert images.equal(inputs)
    assert images.grad is None
    assert torch.get_rng_state().equal(rng)
    for values in vars(curve).values():
        assert values.dtype == torch.float64
        assert not values.is_inference()
        assert not values.requires_grad


def test_a_model_that_writes_into_its_input(images, labels, options):
    linear = nn.Linear(2, 4).double()
    clean = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    writing = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    before = images.clone()
    curves = [
        gradient_sign_curves(net, images, labels, {"phi": score_gradient(net)}, [0.1, 0.2], num_steps=2, **options)[
            "phi"
        ]
        for net in (clean, writing)
    ]
    assert curves[0].logit_change.equal(curves[1].logit_change)
    assert images.equal(before)


ZEROS = torch.zeros(5, 2, 2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 2, 4)}, r"`images` must be \[N,C,H,W\] with N >= 1, got \[2, 2, 4\]"),
        ({"images": ZEROS - 3}, r"`images` leave 0..1 when `mean` and `std` are undone: pass those of their norm"),
        ({"mean": None, "std": None}, r"`images` leave 0..1"),
        ({"std": (1.0, 0.0)}, r"`std` must be positive, got \[1.0, 0.0\]"),
        ({"std": (1.0, 1.0, 1.0)}, r"`std` must be one number or one for each of 2 channels, got \[1.0, 1.0, 1.0\]"),
        ({"mean": (torch.nan, 0.0)}, r"`mean` must be one number or one for each of 2 channels"),
        ({"labels": torch.zeros(4).long()}, r"`logits` must be \[N,K\] and `labels` \[N\], got \[5, 4\] and \[4\]"),
        ({"labels": torch.full((5,), 4)}, r"`labels` must lie in 0..3, got 4 at index 0"),
        ({"target": torch.full((5,), 4)}, r"`target` must lie in 0..3"),
        ({"gradients": {}}, r"`gradients` must hold at least one explanation, got none"),
        (
            {"gradients": {"a": ZEROS[:, :1]}},
            r"`gradients\['a'\]` must be \[5, 2, 2, 4\] as the images, got \[5, 1, 2, 4\]",
        ),
        ({"gradients": {"a": ZEROS / 0}}, r"`gradients\['a'\]` must not be NaN"),
        ({"gradients": {"a": lambda x, t: x / 0 * 0}}, r"`gradients\['a'\]` must not be NaN"),
        ({"num_steps": 2}, r"`gradients\['phi'\]` must be a function for num_steps=2: it is asked again on the way"),
        ({"num_steps": 0}, r"`num_steps` must be at least 1, got 0"),
        ({"epsilons": []}, r"`epsilons` must be at least one number, none negative, got \[\]"),
        ({"epsilons": [0.1, -0.1]}, r"`epsilons` must be at least one number, none negative"),
        ({"epsilons": [torch.nan]}, r"`epsilons` must be at least one number, none negative"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1 image, got 0"),
        ({"logits": torch.full((5, 4), torch.nan)}, r"`logits` must not be NaN"),
    ],
)
def test_errors(changes, message, model, images, labels, options):
    arguments = {
        "images": images, "labels": labels, "gradients": {"phi": ZEROS}, "epsilons": [0.1], **options, **changes
    }  # fmt: skip
    with pytest.raises(ArgumentError, match=message):
        gradient_sign_curves(model, **arguments)


# --- the accumulator ------------------------------------------------------------------------------------------------


def test_metric_picks_its_epsilon_and_quantity():
    curves = GradientSignCurves(
        correct_before=torch.tensor([1.0, 0.0, 0.0]),
        correct=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
        logit_change=torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 6.0]]),
        probability_change=torch.tensor([[0.0, 0.5], [0.0, 0.25], [0.0, 0.0]]),
    )
    expected = {"accuracy": 100 / 3, "logit": 3.0, "probability": 0.25}
    for quantity, value in expected.items():
        metric = GradientSign("weighted", quantity, epsilon=1e-5)
        metric.update(curves, epsilons=[1e-3, 1e-5])
        assert metric.compute().item() == pytest.approx(value)
        assert metric.name == f"gradient_sign_weighted_{quantity}_0_00001"
        assert metric.unit == ("%" if quantity == "accuracy" else "")
    with pytest.raises(ArgumentError, match=r"`epsilons` must hold 1e-05, that of gradient_sign_.*, got \[0.001\]"):
        metric.update(curves, epsilons=[1e-3])
    with pytest.raises(ArgumentError, match=r"`curves` must have E = 1 sizes, got \[3, 2\]"):
        metric.update(curves, epsilons=[1e-5])


def test_metric_errors():
    with pytest.raises(UnknownNameError, match=r"`quantity` must be one of accuracy, logit, probability; got 'score'"):
        GradientSign("max", "score", epsilon=1e-3)
    with pytest.raises(ArgumentError, match=r"`epsilon` must be a number that is not negative, got -1"):
        GradientSign("max", "logit", epsilon=-1)


def test_captum_fgsm_is_the_weighted_contrast():
    robust = pytest.importorskip("captum.robust")
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    images, labels = torch.rand(4, 2, 3, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    attack = robust.FGSM(nn.Sequential(model, nn.Softmax(dim=1)), lower_bound=0.0, upper_bound=1.0)
    moved = attack.perturb(images.clone().requires_grad_(), epsilon=0.1, target=labels, targeted=True)
    with torch.no_grad():
        logits = model(moved)
        expected = (logits - model(images)).gather(1, labels[:, None])
    curve = gradient_sign_curves(model, images, labels, {"phi": score_gradient(model, "weighted")}, [0.1])["phi"]
    torch.testing.assert_close(curve.logit_change, expected)
