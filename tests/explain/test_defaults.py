"""torch's default device and type are the caller's affair: whatever they are, results are those of the images' own."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contrex.explain import EXPLAINERS, LRP, Captum, Explanation
from contrex.losses import cgc_loss, gcc_loss, l2_consistency_loss, supcon_loss
from contrex.metrics import (
    baseline_images,
    content_heatmap,
    curve_fractions,
    deletion_curve,
    equivariance_similarity,
    expected_calibration_error,
    fgsm,
    gradient_sign_curves,
    infidelity,
    insertion_curve,
    kept_probabilities,
    map_similarity,
    masked_relative_probability,
    max_sensitivity,
    pixel_bounds,
    pointing_game,
    stochastic_pointing_game,
)
from contrex.ops.geometry import Crop, random_crop, warp_heatmap
from explain.networks import images, network, two_grids
from explain.test_contract import CHEAPER, TRANSFORMERS
from sampling import crossed, sampled


@contextlib.contextmanager
def default_type(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS = {"meta": lambda: torch.device("meta"), "float64": lambda: default_type(torch.float64)}
NET, X = network().float(), images().float()
TARGET = torch.tensor([0, 1, 2])
TOP2, RIGHT, BLACK = torch.tensor([[0, 1], [1, 2], [2, 3]]), torch.tensor([True, False, True]), torch.zeros_like(X)
SALIENCY = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0))


def check_alike(ask):
    expected = ask()
    for default in DEFAULTS.values():
        with default():
            found = ask()
        pairs = zip(found, expected, strict=True) if isinstance(expected, (tuple, list)) else [(found, expected)]
        for one, other in pairs:
            torch.testing.assert_close(one, other, equal_nan=True)  # device and type too


@pytest.mark.parametrize("name", crossed([n for n in EXPLAINERS if n not in TRANSFORMERS], one_in=3))
def test_explainers(name):
    kind, explainer = EXPLAINERS[name], CHEAPER.get(name, EXPLAINERS[name])
    contrast = "weighted" if kind.is_class_specific else None
    net = two_grids().float() if name == "refine_cam" else NET
    check_alike(lambda: explainer(net)(X, target=[0, 1, 2], contrast=contrast).heatmap)
    check_alike(lambda: explainer(net).classes(X, 2).heatmap)
    if kind.is_differentiable:
        check_alike(lambda: explainer(net)(X, target=1, differentiable=True).heatmap)


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-alpha-beta", "epsilon-gamma-box"])
def test_rules(rules):
    check_alike(lambda: LRP(NET, rules=rules)(X, target=1).heatmap)


def test_captum_and_figures():
    pytest.importorskip("captum")
    check_alike(lambda: Captum(NET, "IntegratedGradients", n_steps=5)(X, target=1).heatmap)
    why = Explanation(SALIENCY, torch.zeros(3, 4), TARGET)
    for default in DEFAULTS.values():
        with default():
            assert why.show(X, mean=(0.5,) * 3, std=(0.2,) * 3).axes


def test_losses():
    maps, view = SALIENCY[:, :7, :7].contiguous(), SALIENCY[:, 1:, :7].contiguous()
    crop = random_crop(3, 56, scale=(0.2, 1.0), ratio=(0.7, 1.4), flip=0.5, generator=np.random.default_rng(0))
    composite, features = SALIENCY[:, :8, :8].contiguous(), F.normalize(SALIENCY, dim=-1)
    for variant in ("paper", "published-code"):
        check_alike(lambda: cgc_loss(maps, view, crop, variant=variant, extra_negatives=maps[:2]))  # noqa: B023
        check_alike(lambda: l2_consistency_loss(maps, view, crop, variant=variant))  # noqa: B023
    check_alike(lambda: gcc_loss(maps[:, :4, :4], composite, [0, 1, 3]))
    for labels in (None, [0, 1, 0], TARGET):
        check_alike(lambda: supcon_loss(features, labels, num_anchors=2))  # noqa: B023
    check_alike(lambda: supcon_loss(features, [0, 1], num_background=1))
    check_alike(lambda: warp_heatmap(maps, Crop.identity(3, 56)))


BOTH = torch.stack([SALIENCY, SALIENCY.flip(1)], 1)
BOX = [[[2.0, 2.0, 6.0, 6.0]]] * 3
ASKED = {
    "insertion": lambda: insertion_curve(NET, X, SALIENCY, target=TARGET, step=20, baseline=BLACK),
    "deletion": lambda: deletion_curve(NET, X, SALIENCY, target=TARGET, step=20, baseline=BLACK),
    "fractions": lambda: curve_fractions(96, 20),
    "drop": lambda: kept_probabilities(NET, X, SALIENCY, fractions=[0.5], baseline=BLACK),
    "infidelity": lambda: infidelity(NET, X, SALIENCY, num_samples=4, noise_std=0.1, seeds=[0, 1, 2]),
    "sensitivity": lambda: max_sensitivity(
        lambda x, *target: x.abs().sum(1), X, num_samples=3, radius=0.1, seeds=[0, 1, 2]
    ),
    "fgsm": lambda: fgsm(NET, X, TARGET, epsilon=0.01, std=(0.2, 0.2, 0.2), lower=-9.0, upper=9.0),
    "bounds": lambda: pixel_bounds((0.5,) * 3, (0.2,) * 3),
    "sign": lambda: gradient_sign_curves(NET, X, TARGET, {"own": X}, [0.01], clamp=False)["own"].logit_change,
    "content": lambda: content_heatmap(SALIENCY, BOX, [(8, 12)] * 3),
    "pointing": lambda: pointing_game(SALIENCY, BOX, [(8, 12)] * 3),
    "stochastic": lambda: stochastic_pointing_game(SALIENCY, BOX, [(8, 12)] * 3, seeds=[0, 1, 2]),
    "masks": lambda: masked_relative_probability(NET, X, BOTH, BOTH.flip(2), top2=TOP2),
    "baselines": lambda: list(baseline_images(X).values()),
    "calibration": lambda: expected_calibration_error(SALIENCY[:, 0, 0], RIGHT),
    "equivariance": lambda: equivariance_similarity(SALIENCY, SALIENCY, Crop.identity(3, (8, 12)), size=(8, 12)),
    "similarity": lambda: map_similarity(SALIENCY, SALIENCY.flip(1)),
}


@sampled(one_in=3)
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_metrics(ask):
    check_alike(ask)
