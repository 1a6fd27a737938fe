"""Every explainer through every promise: on small float64 networks, and (slow) on real architectures."""

import contextlib
import re
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import contrex
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain import EXPLAINERS
from contrex.explain.contract import CHECKS, ContractError, check_contract
from contrex.explain.forward.functions import intercepted
from contrex.explain.forward.in_place import written
from explain import by_architecture
from explain.networks import HEADS, images, network, two_grids
from sampling import crossed

ARCHITECTURES = {
    "torchvision:resnet18": 48,
    "torchvision:vgg16_bn": 64,
    "torchvision:alexnet": 96,
    "torchvision:mobilenet_v2": 64,
    "torchvision:densenet121": 64,
    "timm:efficientnet_b0": 64,
    "timm:convnext_atto": 64,
    "timm:vit_tiny_patch16_224": 48,
    "timm:deit_tiny_distilled_patch16_224": 48,
    "timm:swin_tiny_patch4_window7_224": 64,
}
TRANSFORMERS = {"attention_rollout", "gradient_attention_rollout", "legrad"}
"""Methods that need attention, and so another network than the small CNNs."""


def small_network(method):
    if method == "refine_cam":  # which needs two resolutions
        return two_grids(), images()
    if method not in TRANSFORMERS:
        return network("pooled" if method == "cam" else "mlp"), images()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=4, depth=2, embed_dim=12, num_heads=3)
    return net.double().eval(), torch.randn(3, 3, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize(("method", "check"), crossed(EXPLAINERS, CHECKS, one_in=9))
def test_small_networks(method, check):
    CHECKS[check](CHEAPER.get(method, EXPLAINERS[method]), *small_network(method))


@pytest.mark.parametrize(("method", "head"), crossed(["grad_cam", "hires_cam", "gradient"], HEADS, one_in=3))
def test_every_kind_of_head(method, head):
    check_contract(EXPLAINERS[method], network(head), images())


@pytest.mark.parametrize("method", crossed(EXPLAINERS, one_in=3, start=1))
def test_models_wrapped_for_data_parallel_training(method, tmp_path):
    kind, (net, x) = CHEAPER.get(method, EXPLAINERS[method]), small_network(method)
    expected = kind(net)(x, target=0).heatmap
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        found = kind(DistributedDataParallel(net))(x, target=0).heatmap
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", crossed(EXPLAINERS, one_in=3, start=2))
def test_autocast_on_a_float32_network(method):
    """The small networks are float64, which autocast leaves alone."""
    kind, (net, x) = CHEAPER.get(method, EXPLAINERS[method]), small_network(method)
    net, x = net.float(), x.float()
    expected = kind(net)(x, target=1).heatmap
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            found = kind(net)(x, target=1).heatmap
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.5 * expected.norm()  # half precision moves maxima and signs


@pytest.mark.parametrize(
    ("method", "contrast"),
    crossed([name for name, kind in EXPLAINERS.items() if kind.is_differentiable], [None, "weighted"], one_in=2),
)
def test_a_loss_on_maps_has_the_right_gradient(method, contrast):
    """Along a random direction in the parameters, against finite differences of the plain call."""
    net, x = small_network(method)
    for module in net.modules():  # smooth, so that finite differences mean something
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus())
    explainer = EXPLAINERS[method](net)
    if contrast is not None and not explainer.is_class_specific:
        pytest.skip("no contrast")
    parameters = list(net.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    scale = explainer(x, target=1, contrast=contrast).heatmap.abs().max()

    def loss(**options):
        why = explainer(x, target=1, contrast=contrast, **options)
        return (why.heatmap / scale).square().sum() + why.logits.sum()

    gradients = torch.autograd.grad(loss(differentiable=True), parameters, allow_unused=True)
    found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=sign * 1e-6)
            sides.append(loss())
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=sign * 1e-6)
    assert found.item() == pytest.approx(((sides[0] - sides[1]) / 2e-6).item(), rel=1e-4)


CHEAPER = {
    "rise": partial(contrex.RISE, num_masks=16),
    "smooth_grad": partial(contrex.SmoothGrad, num_samples=4),
    "integrated_gradients": partial(contrex.IntegratedGradients, steps=4),
    "occlusion": partial(contrex.Occlusion, stride=2),
}
"""The same methods with fewer points; what they promise does not depend on how many."""
AT_PIXELS = {"guided_grad_cam", "gradient", "gradient_times_input", "deconvnet", "full_grad"}
"""Methods that see which pixel a max pool takes: in float32, rounding decides it for a pixel or two of a VGG."""
NEARLY_NOTHING = {"contrastive_excitation_backprop"}
"""Methods whose map is a difference of two that random weights make nearly equal: float32 leaves it two digits."""
PER_CHANNEL = {"score_cam", "ablation_cam"}
"""Methods with a forward pass per channel: on real networks two checks have to do."""


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", EXPLAINERS)
def test_real_architectures(method, architecture):
    """Methods that do not fit an architecture say so by name; the others keep every promise, also when not square."""
    kind, net, x = CHEAPER.get(method, EXPLAINERS[method]), *real_network(architecture)
    if method in NEARLY_NOTHING or (method in AT_PIXELS and architecture.endswith("vgg16_bn")):
        net, x = deepcopy(net).double(), x.double()
    said = by_architecture.documented()[method, architecture]
    try:
        kind(net)(x[:1])
    except LayerError as error:
        assert said == "refused"
        pytest.skip(str(error).splitlines()[0])
    assert said == "right"
    if method in PER_CHANNEL:
        CHECKS["gives_what_it_promises"](kind, net, x)
        CHECKS["leaves_no_trace"](kind, net, x[:1])
        return
    check_contract(kind, net, x)
    if "patch" not in architecture:
        wide = torch.randn(1, 3, x.shape[2], x.shape[3] + 32, dtype=x.dtype)
        assert kind(net)(wide).heatmap.isfinite().all()


@cache
def real_network(architecture):
    from contrex.models import build_network

    torch.manual_seed(0)
    side = ARCHITECTURES[architecture]
    options = {"img_size": str(side)} if "patch" in architecture else {}
    net = build_network(architecture, options, num_classes=6).eval()
    for module in net.modules():  # random weights whose classes and images differ enough to be told apart
        if isinstance(module, nn.Linear) and module.out_features == 6:
            nn.init.normal_(module.weight, std=0.3)
    return net, torch.randn(2, 3, side, side)


# --- the checks themselves can fail ---------------------------------------------------------------------------------


class Mixing(contrex.GradCAM):
    """Subtracts the batch's mean map."""

    def combine(self, activation, gradient):
        maps = super().combine(activation, gradient)
        return maps - maps.mean(0)


class Rectified(contrex.GradCAM):
    """Loses the sign, which contrasts need."""

    def combine(self, activation, gradient):
        return super().combine(activation, gradient).relu()


class Leaving(contrex.GradCAM):
    """Leaves a gradient behind."""

    def combine(self, activation, gradient):
        with torch.enable_grad():
            sum(p.sum() for p in self.model.parameters()).backward()
        return super().combine(activation, gradient)


class Hoarding(contrex.GradCAM):
    """Keeps the activation."""

    def combine(self, activation, gradient):
        self.kept = activation
        return super().combine(activation, gradient)


class Noisy(contrex.GradCAM):
    """Draws from the global random state."""

    def combine(self, activation, gradient):
        maps = super().combine(activation, gradient)
        return maps + torch.randn_like(maps)


class Halved(contrex.GradCAM):
    """Loses precision."""

    def combine(self, activation, gradient):
        return super().combine(activation, gradient).half()


class Detached(contrex.GradCAM):
    """Promises a graph and has none."""

    def combine(self, activation, gradient):
        return super().combine(activation, gradient).detach()


class Remembering(contrex.Gradient):
    """Adds the map of the call before, where it has the same size."""

    before = None

    def combine(self, images, gradient):
        found, before = super().combine(images, gradient), self.before
        self.before = found.detach()
        return found if before is None or before.shape != found.shape else found + before


class Copying(contrex.Gradient):
    """Loses what is written through views."""

    def _forward(self, images, *, differentiable):
        def copied(function, args, kwargs):
            target = written(function, args, kwargs)
            return function(*(args if target is None else (target.clone(), *args[1:])), **kwargs)

        with intercepted(copied):
            return super()._forward(images, differentiable=differentiable)


class Rounding(contrex.Gradient):
    """Gives rounded logits."""

    def _forward(self, images, *, differentiable):
        run = super()._forward(images, differentiable=differentiable)
        return replace(run, logits=run.logits.float().to(run.logits))


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Remembering, "explains_as_a_fresh_one"),
        (Copying, "follows_changes_in_place"),
        (Rounding, "explains_the_models_own_logits"),
        (Mixing, "explains_a_batch_as_single_images"),
        (Rectified, "answers_classes_as_single_calls"),
        (Leaving, "leaves_no_trace"),
        pytest.param(Hoarding, "frees_its_memory", marks=pytest.mark.slow),
        (Noisy, "explains_a_batch_as_single_images"),
        (Halved, "gives_what_it_promises"),
        (Halved, "survives_autocast"),
        (Detached, "is_differentiable_or_says_so"),
    ],
)
def test_a_broken_explainer_is_caught(kind, broken):
    with pytest.raises(ContractError):
        CHECKS[broken](kind, network("mlp"), images())
    with contextlib.suppress(ContractError):
        check_contract(kind, network("mlp"), images())
        pytest.fail("the whole contract let it through")


# --- what it says while it checks -----------------------------------------------------------------------------------

TWO = ("gives_what_it_promises", "leaves_no_trace")


def test_the_contract_says_what_it_checks_and_ends_with_a_line(capsys):
    check_contract(EXPLAINERS["grad_cam"], network("mlp"), images(), checks=TWO)
    *told, end = capsys.readouterr().out.splitlines()
    assert told == ["contract 1/2: gives what it promises", "contract 2/2: leaves no trace"]
    assert re.fullmatch(r"contract: GradCAM passes 2 of 14 checks, \d+\.\d s", end)
    check_contract(EXPLAINERS["grad_cam"], network("mlp"), images(), checks=TWO, tell=None)
    assert not capsys.readouterr().out


def test_the_last_line_names_the_broken_promise():
    told = []
    with pytest.raises(ContractError):
        check_contract(Leaving, network("mlp"), images(), tell=told.append)
    assert told[-1] == "contract 4/14: leaves no trace"


def test_the_contract_runs_small():
    seen = []

    def kind(model):
        model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[2:])))
        return EXPLAINERS["grad_cam"](model)

    x = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    check_contract(kind, network("mlp"), x, side=16, checks=TWO[:1], tell=None)
    assert set(seen) == {(16, 24)}
    with pytest.raises(ArgumentError, match="`side` must be at least 1 pixel, or None; got 0"):
        check_contract(kind, network("mlp"), x, side=0)
    with pytest.raises(UnknownNameError, match=r"`checks` must be one of .*; got 'leaves_traces'\. Did you mean"):
        check_contract(kind, network("mlp"), x, checks=["leaves_traces"])
