"""What torch would say in its own words: missing gradients, checkpointing, ScriptModules, infinite logits."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import contrex
from contrex.errors import ArgumentError, LayerError
from contrex.explain import EXPLAINERS, Captum
from explain.networks import SwitchedOff, images, network
from explain.test_contract import CHEAPER
from sampling import crossed

PIXELS = ("gradient", "gradient_times_input", "smooth_grad", "integrated_gradients", "full_grad", "guided_backprop")
WITHOUT = {
    "score_cam": lambda net: contrex.explain.ScoreCAM(net, "net.act"),
    "eigen_cam": lambda net: contrex.explain.EigenCAM(net, "net.act"),
    "rise": lambda net: contrex.explain.RISE(net, num_masks=20),
    "occlusion": contrex.explain.Occlusion,
}


def few(name, net, **options):
    """The method with as few points as tell it from others."""
    return CHEAPER.get(name, EXPLAINERS[name])(net, **options)


class Holding(nn.Module):
    def __init__(self, net=None):
        super().__init__()
        self.net = network("mlp") if net is None else net

    def forward(self, x):
        return self.net(x)


# --- without gradients ----------------------------------------------------------------------------------------------


class NoGrad(Holding):
    @torch.no_grad()
    def forward(self, x):
        return self.net(x)


class Inference(Holding):
    @torch.inference_mode()
    def forward(self, x):
        return self.net(x)


class Detached(Holding):
    def forward(self, x):
        return self.net(x).detach()


class FrozenTrunk(Holding):
    """Linear probing: only the head is in the graph."""

    def forward(self, x):
        with torch.no_grad():
            features = self.net.act(self.net.features(x))
        return self.net.head(features)


@pytest.mark.parametrize("kind", [NoGrad, Inference, Detached, FrozenTrunk])
@pytest.mark.parametrize("name", PIXELS)
def test_pixels_without_a_gradient_name_what_needs_none(kind, name):
    message = r"no gradient reaches .*ScoreCAM with a `layer`, RISE and Occlusion|or runs it without gradients: use the"
    with pytest.raises(LayerError, match=message):
        EXPLAINERS[name](kind().eval())(images())


@pytest.mark.parametrize("kind", [Inference, Detached])
@pytest.mark.parametrize("name", ["grad_cam", "layer_cam", "lrp"])
def test_layers_without_a_gradient_name_what_needs_none(kind, name):
    with pytest.raises(LayerError, match="ScoreCAM with a `layer`, RISE and Occlusion"):
        EXPLAINERS[name](kind().eval(), "net.act")(images())


@pytest.mark.parametrize(
    ("kind", "explainer"), crossed([NoGrad, Inference, Detached, FrozenTrunk], WITHOUT.values(), one_in=2)
)
def test_what_needs_no_gradient_works_without(kind, explainer):
    why = explainer(kind().eval())(images(), target=1)
    torch.testing.assert_close(why.heatmap, explainer(Holding().eval())(images(), target=1).heatmap)
    assert not why.logits.is_inference()


def test_a_layer_inside_no_grad_is_explained():
    """The hook switches gradients on behind the layer, exactly."""
    expected = contrex.GradCAM(Holding().eval(), "net.act")(images(), target=1)
    found = contrex.GradCAM(NoGrad().eval(), "net.act")(images(), target=1)
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    with pytest.raises(LayerError, match=r"no gradient reaches `layer` 'net.act'"):
        contrex.GradCAM(FrozenTrunk().eval(), "net.act")(images())  # behind the block the old mode is back


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_dynamically_quantised_networks():
    net = torch.ao.quantization.quantize_dynamic(Holding(network("mlp").float()).eval(), {nn.Linear}, torch.qint8)
    x = images().float()
    for name in ("grad_cam", "gradient", "integrated_gradients", "guided_backprop", "full_grad"):
        with pytest.raises(LayerError, match=r"no gradient reaches.*quantised.*ScoreCAM with a `layer`, RISE"):
            EXPLAINERS[name](net)(x)
    for explainer in WITHOUT.values():
        assert not bool(explainer(net)(x).empty.any())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_quantised_layers_with_a_path_around_them_are_no_silent_zeros():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            pooled = self.conv(x).relu().mean((2, 3))
            return self.fc(pooled + self.inner(pooled))

    net = torch.ao.quantization.quantize_dynamic(Residual().eval(), {"inner"}, torch.qint8)
    for explain in (contrex.GradCAM(net, "conv"), contrex.Gradient(net), contrex.explain.GuidedBackprop(net)):
        with pytest.raises(LayerError, match=r"no gradient reaches .* quantised layers"):
            explain(images().float())
    assert not bool(contrex.explain.ScoreCAM(net, "conv")(images().float()).empty.any())


# --- activations computed again -------------------------------------------------------------------------------------


class Checkpointed(Holding):
    def __init__(self, part, use_reentrant):
        super().__init__()
        self.part, self.options = part, {"use_reentrant": use_reentrant}

    def forward(self, x):
        net = self.net
        if self.part == "all":
            return checkpoint(net, x, **self.options)
        if self.part == "trunk":
            return net.head(net.act(checkpoint(net.features, x, **self.options)))
        if self.part == "layer":
            return net.head(checkpoint(net.act, net.features(x), **self.options))
        return checkpoint(net.head, net.act(net.features(x)), **self.options)


@cache
def plain(name, differentiable):
    """The map of class 1 in the network without checkpoints."""
    return few(name, Holding().eval())(images(), target=1, differentiable=differentiable).heatmap.detach()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize(
    ("part", "use_reentrant"), crossed(["all", "trunk", "layer", "behind"], [True, False], one_in=2)
)
def test_checkpointed_parts_give_the_same_map_or_a_reason(part, use_reentrant):
    """Layers are named: where activations are computed again in silence no graph tells which one carries the logits."""
    right = []
    for name in (*PIXELS, "grad_cam", "hires_cam", "layer_cam", "lrp", "excitation_backprop", "score_cam"):
        kind = EXPLAINERS[name]
        layer = {"layer": "net.act"} if name.endswith("cam") else {}
        for differentiable in (False, True) if kind.is_differentiable else (False,):
            asked = {"target": 1, "differentiable": differentiable}
            try:
                found = few(name, Checkpointed(part, use_reentrant).eval(), **layer)(images(), **asked)
            except ArgumentError as error:
                assert any(word in str(error).lower() for word in ("checkpoint", "intercepted")), (name, error)  # noqa: PT017
                continue
            torch.testing.assert_close(found.heatmap.detach(), plain(name, differentiable), msg=name)
            assert found.heatmap.requires_grad == differentiable
            right.append(name)
    assert "score_cam" in right
    assert use_reentrant or {"grad_cam", "gradient", "guided_backprop"} <= set(right)
    if part == "all" and use_reentrant:
        with pytest.raises(LayerError, match=r"gradient checkpointing\), so nothing tells which layer.*pass `layer="):
            contrex.GradCAM(Checkpointed(part, use_reentrant).eval())(images())


def test_checkpointed_vision_transformers_are_told_how_to_turn_it_off():
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=4, depth=2).eval()
    nn.init.normal_(net.head.weight)
    twin, x = copy.deepcopy(net), torch.randn(2, 3, 32, 32)
    net.set_grad_checkpointing(True)
    refused = (("hires_cam", True), ("gradient", True), ("gradient_attention_rollout", False))
    for name, differentiable in refused:
        with pytest.raises(ArgumentError, match=r"gradient checkpointing.*`model.set_grad_checkpointing\(False\)`"):
            EXPLAINERS[name](net)(x, differentiable=differentiable)
    for name in ("hires_cam", "gradient", "attention_rollout"):
        torch.testing.assert_close(EXPLAINERS[name](net)(x).heatmap, EXPLAINERS[name](twin)(x).heatmap)
    net.set_grad_checkpointing(False)
    for name, differentiable in refused:
        EXPLAINERS[name](net)(x, differentiable=differentiable)


# --- ScriptModules --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["scripted", "traced", "with a scripted part"])
def script(request):
    net = network("mlp")
    if request.param == "scripted":
        return torch.jit.script(net)
    if request.param == "traced":
        return torch.jit.trace(net, images())
    net.features = torch.jit.script(net.features)
    net.act = torch.jit.script(net.act)
    return net


pytestmark_script = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::DeprecationWarning")


@pytestmark_script
def test_script_modules_are_explained_at_the_pixels(script):
    for name in ("gradient", "gradient_times_input", "smooth_grad", "integrated_gradients", "rise", "occlusion"):
        expected = few(name, network("mlp"))(images(), target=1).heatmap
        for _ in range(3):  # the first passes are interpreted, later ones optimised
            torch.testing.assert_close(few(name, script)(images(), target=1).heatmap, expected)


@pytestmark_script
def test_what_looks_into_script_modules_says_that_it_cannot(script):
    message = (
        r"ScriptModule \(torch.jit\), whose inner layers cannot be looked into: explain the network as it was before"
    )
    for name in ("attention_rollout", "gradient_attention_rollout"):
        with pytest.raises(LayerError, match=message):
            EXPLAINERS[name](script)
    for name in ("grad_cam", "score_cam", "ablation_cam", "eigen_cam"):
        with pytest.raises(LayerError, match=message):
            EXPLAINERS[name](script, "act")(images())


@pytestmark_script
def test_the_search_in_a_script_module_says_why_it_finds_nothing():
    with pytest.raises(LayerError, match="RecursiveScriptModule is a ScriptModule"):
        contrex.GradCAM(torch.jit.script(network()))(images())


@pytestmark_script
def test_relus_that_a_script_hides_are_refused():
    net = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(288, 8), nn.ReLU(), nn.Linear(8, 4)).double())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(288, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    plain.load_state_dict(net.state_dict())
    expected = contrex.explain.GuidedBackprop(plain)(images(), target=1).heatmap
    for _ in range(4):
        try:
            found = contrex.explain.GuidedBackprop(net)(images(), target=1).heatmap
        except LayerError as error:
            assert "DifferentiableGraphBackward, which hides its ReLUs" in str(error)  # noqa: PT017
        else:
            torch.testing.assert_close(found, expected)


# --- logits that are not finite -------------------------------------------------------------------------------------


class Masked(Holding):
    """Class 2 is masked."""

    def __init__(self, value=-torch.inf, cls=2):
        super().__init__()
        self.value, self.cls = value, cls

    def forward(self, x):
        return self.net(x).index_fill(1, torch.tensor([self.cls]), self.value)


METHODS = [
    *("grad_cam", "hires_cam", "xgrad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam", "ablation_cam", "gradient"),
    *("gradient_times_input", "smooth_grad", "integrated_gradients", "guided_backprop", "rise", "occlusion"),
]


@pytest.mark.parametrize("name", crossed(METHODS, one_in=2))
def test_a_masked_class_leaves_the_maps_of_the_others_alone(name):
    x = images()
    torch.testing.assert_close(
        few(name, Masked().eval())(x, target=1).heatmap, few(name, Holding().eval())(x, target=1).heatmap
    )
    for contrast in ("weighted", "max", 0):  # nothing of which has class 2
        asked = {"target": 1, "contrast": contrast}
        assert bool(few(name, Masked().eval())(x, **asked).heatmap.isfinite().all())


@pytest.mark.parametrize("name", crossed(METHODS, one_in=2, start=1))
def test_a_score_with_a_masked_class_is_refused_by_its_name(name):
    masked = few(name, Masked().eval())
    for asked in ({"target": 2}, {"target": 1, "contrast": 2}, {"target": 1, "contrast": "mean"}):
        with pytest.raises(ArgumentError, match=r"the logit of class 2 is -inf for image 0, so the score asked for"):
            masked(images(), **asked)
    with pytest.raises(ArgumentError, match="the logit of class 3 is inf for image 0"):
        few(name, Masked(torch.inf, 3).eval())(images())
    with pytest.raises(ArgumentError, match=r"the model gives NaN for image 0 \(1 of 4 logits, class 3 the first\)"):
        few(name, Masked(torch.nan, 3).eval())(images())


def test_probabilities_of_masked_classes():
    net, x = Masked().eval(), images()
    for kind in (contrex.Gradient, contrex.explain.Occlusion):
        found = kind(net)(x, target=1, score="probability").heatmap
        assert bool(found.isfinite().all())
        assert bool((found != 0).any())
        assert bool(kind(net)(x, target=2, score="probability").empty.all())  # it stays 0
        with pytest.raises(ArgumentError, match="the logit of class 2 is -inf"):
            kind(net)(x, target=2, score="log_probability")


def test_captum_counts_masked_classes_as_nothing():
    pytest.importorskip("captum")
    masked, plain = (Captum(net.eval(), "InputXGradient") for net in (Masked(), Holding()))
    torch.testing.assert_close(masked(images(), target=1).heatmap, plain(images(), target=1).heatmap)


class MaskedInTheDark(Holding):
    """Finite for the images, infinite for darker ones."""

    def forward(self, x):
        return self.net(x).where(x.abs().mean((1, 2, 3))[:, None] > 0.7, torch.inf)


def test_scores_that_are_infinite_for_changed_images_only():
    with pytest.raises(ArgumentError, match=r"heatmap of image 0 is not finite.*its logits of changed images"):
        contrex.explain.RISE(MaskedInTheDark().eval(), num_masks=20)(images(), target=1)


# --- metadata of the whole batch ------------------------------------------------------------------------------------


class WithMetadata(Holding):
    """Adds what it knows of each image of the batch."""

    def __init__(self, num):
        super().__init__()
        self.meta = torch.randn(num, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def forward(self, x):
        return self.net(x) + self.meta


class Joined(WithMetadata):
    def forward(self, x):
        return torch.cat([self.net(x), self.meta], 1)


OTHER_SIZES = (
    r"took the \d image\(s\) of the call, but not \d+ copies of one \(.*batches of other sizes. Let the forward"
)


@pytest.mark.parametrize("how", SwitchedOff.HOW)
def test_an_answer_by_the_place_in_the_batch_is_seen_beside_a_class_that_is_switched_off(how):
    class ByPlace(Holding):
        def forward(self, x):
            return self.net(x) * torch.arange(1, len(x) + 1)[:, None]

    for explain in (
        contrex.explain.RISE(SwitchedOff(ByPlace(), how)),
        contrex.explain.Occlusion(SwitchedOff(ByPlace(), how)),
    ):
        with pytest.raises(ArgumentError, match=OTHER_SIZES):
            explain(images(2), target=1)


@pytest.mark.parametrize("kind", [WithMetadata, Joined])
@pytest.mark.parametrize("num", [2, 3, 8])  # 8 images are one chunk: nothing would fail
def test_methods_that_run_other_batches_say_so(kind, num):
    net, x = kind(num).eval(), images(num)
    for explain in (
        contrex.explain.ScoreCAM(net, "net.act"),
        contrex.explain.RISE(net, num_masks=20),
        contrex.explain.Occlusion(net),
        contrex.explain.AblationCAM(net, "net.act"),
    ):
        with pytest.raises(ArgumentError, match=OTHER_SIZES):
            explain(x)


@pytest.mark.parametrize("kind", [contrex.explain.IntegratedGradients, contrex.explain.SmoothGrad])
def test_averaged_gradients_work_where_a_pass_is_the_batch(kind):
    with pytest.raises(ArgumentError, match=OTHER_SIZES):
        kind(WithMetadata(3).eval())(images(3))
    found = kind(WithMetadata(6).eval())(images(6), target=1).heatmap
    torch.testing.assert_close(found, kind(Holding().eval())(images(6), target=1).heatmap)


def test_one_pass_of_the_batch_has_its_metadata():
    found = contrex.GradCAM(WithMetadata(3).eval(), "net.act")(images(3), target=1).heatmap
    torch.testing.assert_close(found, contrex.GradCAM(Holding().eval(), "net.act")(images(3), target=1).heatmap)


class Noisy(Holding):
    def forward(self, x):
        return self.net(x) + torch.randn(len(x), 4)


def test_networks_that_draw_random_numbers_are_not_refused():
    assert contrex.explain.RISE(Noisy().eval(), num_masks=20)(images()).heatmap.isfinite().all()
