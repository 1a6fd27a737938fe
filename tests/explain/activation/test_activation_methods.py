"""CAM, XGrad-CAM, Grad-CAM++, LayerCAM, Eigen-CAM, Score-CAM and Ablation-CAM against their equations and peers."""

import math

import pytest
import torch
from torch import nn

from contrex import GradCAM, HiResCAM
from contrex.errors import ArgumentError, LayerError, NotDifferentiableError, UnknownNameError
from contrex.explain import (
    CAM,
    EXPLAINERS,
    AblationCAM,
    EigenCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from contrex.explain.activation.eigen_cam import first_component
from explain.networks import HEADS, images, network
from oracles import activation_methods as oracles
from oracles import cams
from sampling import crossed, sampled

SCORES = {"logit": lambda y: y, "probability": lambda y: y.softmax(-1), "log_probability": lambda y: y.log_softmax(-1)}
GRADIENT_METHODS = {
    XGradCAM: oracles.xgrad_cam,
    GradCAMPlusPlus: oracles.grad_cam_plus_plus,
    LayerCAM: oracles.layer_cam,
}
NAMES = ("cam", "xgrad_cam", "grad_cam_plus_plus", "layer_cam", "eigen_cam", "score_cam", "ablation_cam")
TARGET = [0, 1, 3]


def close(found, expected, *, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def parts(net, layer):
    """What comes before and after a layer of the small networks, the layer itself counted as before."""
    if layer == "act":
        return (lambda x: net.act(net.features(x))), net.head
    return net.features, (lambda a: net.head(net.act(a)))


def forwards_of(net):
    """The number of images in each forward pass of the network."""
    sizes = []
    return sizes, net.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))


# --- the equations --------------------------------------------------------------------------------------------------


def assert_explained(explainer, x, maps_of, **options):
    """Every contrast is that of the class maps which `maps_of` gives for an image [1,C,H,W]."""
    cams.assert_contrasted(explainer, x, TARGET, [maps_of(image[None]) for image in x], **options)


@pytest.mark.parametrize(("method", "head", "layer"), crossed(GRADIENT_METHODS, HEADS, ["act", "features"], one_in=3))
def test_gradient_methods(method, head, layer):
    net, x = network(head), images()
    trunk, rest = parts(net, layer)

    def maps_of(image):
        activation = trunk(image).detach()
        return [GRADIENT_METHODS[method](activation[0], g) for g in cams.class_gradients(rest, activation, 4)]

    assert_explained(method(net, layer), x, maps_of)


@pytest.mark.parametrize("head", ["pooled", "dropout"])
def test_cam(head):
    net, x = network(head), images()
    rows = (net.head.fc if head == "pooled" else net.head[3]).weight.detach()
    assert_explained(
        CAM(net), x, lambda image: [oracles.cam(net.act(net.features(image)).detach()[0], row) for row in rows]
    )


@pytest.mark.parametrize("head", ["pooled", "mlp"])
def test_eigen_cam(head):
    net, x = network(head), images()
    heatmap = EigenCAM(net, "act")(x).heatmap
    activation = net.act(net.features(x)).detach()
    close(heatmap, torch.stack([oracles.eigen_cam(one) for one in activation]), rtol=1e-6)


@pytest.mark.parametrize(("variant", "score"), crossed(["paper", "published-code"], SCORES, one_in=2))
def test_score_cam(variant, score):
    net, x = network("mlp"), images(size=(8, 13))

    def maps_of(image):
        activation = net.act(net.features(image)).detach()[0]
        scores = [lambda x, k=k: SCORES[score](net(x[None]))[0, k].item() for k in range(4)]
        return [oracles.score_cam(image[0], activation, s, published_code=variant == "published-code") for s in scores]

    assert_explained(ScoreCAM(net, variant=variant, batch_size=4), x, maps_of, score=score)


@pytest.mark.parametrize(("layer", "head", "score"), crossed(["act", "features"], HEADS, SCORES, one_in=3))
def test_ablation_cam(layer, head, score):
    net, x = network(head), images()
    trunk, rest = parts(net, layer)

    def maps_of(image):
        scores = [lambda a, k=k: SCORES[score](rest(a[None]))[0, k].item() for k in range(4)]
        return [oracles.ablation_cam(trunk(image).detach()[0], s) for s in scores]

    assert_explained(AblationCAM(net, layer, batch_size=4), x, maps_of, score=score)


# --- what each of them is -------------------------------------------------------------------------------------------


def test_the_mean_of_cam_is_the_logit_without_its_bias():
    net, x = network("pooled"), images()
    why = CAM(net)(x, target=TARGET)
    bias = net.head.fc.bias.detach()[torch.tensor(TARGET)]
    close(why.heatmap.mean((1, 2)) + bias, why.logits[range(3), TARGET])
    close(why.heatmap, 24 * GradCAM(net)(x, target=TARGET).heatmap)


@pytest.mark.parametrize(("head", "layer"), [("mlp", None), ("scaled", None), ("pooled", "features")])
def test_cam_refuses_what_is_not_pooling_and_one_linear_layer(head, layer):
    with pytest.raises(LayerError, match="CAM needs global average pooling, one linear layer and no active dropout"):
        CAM(network(head), layer)(images())


def test_cam_refuses_active_dropout():
    net = network("dropout").train()
    with pytest.raises(LayerError, match="no active dropout behind `layer`"):
        CAM(net, "act")(images(), differentiable=True)


def test_cam_of_a_classifier_of_zeros_is_empty():
    net = network("pooled")
    with torch.no_grad():
        net.head.fc.weight.zero_()
    assert CAM(net)(images()).empty.all()


def test_xgrad_cam_keeps_the_sum_of_hires_cam():
    """The axiom of conservation that it was made for; and Grad-CAM where gradients do not vary."""
    net, x = network("mlp"), images()
    found, expected = XGradCAM(net, "act")(x).heatmap, HiResCAM(net, "act")(x).heatmap
    close(found.sum((1, 2)), expected.sum((1, 2)))
    assert not torch.allclose(found, expected)
    close(XGradCAM(network(), "act")(x).heatmap, GradCAM(network(), "act")(x).heatmap)


def test_xgrad_cam_of_a_channel_that_sums_to_rounding_is_not_noise():
    """Instance norm makes every channel sum to zero up to rounding; divided by it, gradients would explode."""
    net, x = network("mlp").float(), images().float()
    net.act = nn.InstanceNorm2d(6)
    assert not XGradCAM(net, "act")(x).heatmap.any()


def test_grad_cam_plus_plus_leaves_out_one_factor_per_map():
    """exp(S) would overflow for a logit of 100, and let the largest logit drown the others in a contrast."""
    net, x = network("mlp"), images(1)
    why = GradCAMPlusPlus(net, "act")(x, target=1)
    activation = net.act(net.features(x)).detach()
    gradient = cams.class_gradients(net.head, activation, 4)[1]
    score = float(why.logits[0, 1])
    close(oracles.grad_cam_plus_plus(activation[0], gradient, score), math.exp(score) * why.heatmap[0])


def test_grad_cam_plus_plus_does_not_depend_on_the_size_of_the_gradient_unit():
    """In float32 the square of a gradient of 1e-25 is 0: alpha as the paper writes it would be 0 / 0."""
    activation, gradient = torch.rand(1, 2, 3, 3), torch.full((1, 2, 3, 3), 1e-25)
    found = GradCAMPlusPlus(network(), "act").combine(activation, gradient)
    close(found, (9 * 1e-25 / 2) * activation.sum(1), rtol=1e-5, atol=0)


def test_layer_cam_counts_positive_gradients_only():
    net, x = network("mlp"), images()
    assert (LayerCAM(net, "act")(x).heatmap >= 0).all()
    assert (HiResCAM(net, "act")(x).heatmap < 0).any()
    assert (LayerCAM(net, "act")(x, contrast="weighted").heatmap < 0).any()


def test_eigen_cam_is_the_same_for_every_class_and_refuses_contrasts():
    net, x = network("mlp"), images()
    explainer = EigenCAM(net, "act")
    close(explainer(x, target=0).heatmap, explainer(x, target=3).heatmap)
    maps = explainer.classes(x, k=2).heatmap
    close(maps[:, 0], maps[:, 1])
    with pytest.raises(ArgumentError, match="`contrast` means nothing to EigenCAM"):
        explainer(x, contrast="mean")
    with pytest.raises(ArgumentError, match="heatmap of image 1 is not finite"):
        explainer(torch.stack([x[0], x[1] * torch.nan]))


def test_eigen_cam_has_a_sign():
    """Behind a ReLU no cell is negative; elsewhere the map goes with the mean activation."""
    net, x = network("mlp"), images(8)
    assert (EigenCAM(net, "act")(x).heatmap >= -1e-12).all()
    net.act = nn.InstanceNorm2d(6)
    found, mean = EigenCAM(net, "act")(x).heatmap, net.act(net.features(x)).detach().mean(1)
    assert (found < 0).any()
    assert ((found * mean).sum((1, 2)) > 0).all()


def test_eigen_cam_keeps_its_sign_where_channels_have_no_mean():
    """As behind a layer norm: what is left of the mean is rounding, and changes with the order of the channels."""
    cells = torch.randn(40, 12, 3, 4, dtype=torch.float64)
    cells = cells - cells.mean(1, keepdim=True)
    found = first_component(cells)
    close(first_component(cells[:, torch.randperm(12)]), found)
    assert (found.flatten(1).gather(1, found.flatten(1).abs().argmax(1, keepdim=True)) > 0).all()


def test_score_cam_of_the_paper_does_not_see_what_is_common_to_all_channels():
    """So the baseline costs no forward pass; the published code's form does see it."""
    net, x = network("mlp"), images()
    before = [ScoreCAM(net, variant=v)(x, target=1).heatmap for v in ("paper", "published-code")]
    with torch.no_grad():
        net.head[4].bias += 3
    after = [ScoreCAM(net, variant=v)(x, target=1).heatmap for v in ("paper", "published-code")]
    close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


def test_ablation_cam_keeps_its_sign_where_the_score_is_negative():
    """The paper's division by the score turns the map over there; otherwise it is one factor."""
    net, x = network("mlp"), images(1)
    activation = net.act(net.features(x)).detach()[0]
    upright = AblationCAM(net)(x, target=1).heatmap[0]
    for shift in (5.0, -5.0):
        with torch.no_grad():
            net.head[4].bias += shift - net(x)[0, 1]
        close(AblationCAM(net)(x, target=1).heatmap[0], upright)
        paper = oracles.ablation_cam(activation, lambda a: net.head(a[None])[0, 1].item(), divided=True)
        close(paper, upright / shift)


# --- both roads of a contrast ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "head", "contrast"), crossed([CAM, XGradCAM, AblationCAM], HEADS, cams.CONTRASTS[1:], one_in=4)
)
def test_contrast_in_the_score_is_the_difference_of_maps(method, head, contrast):
    """Proposition 3, for the methods that say they are linear."""
    if method is CAM and head in ("mlp", "scaled"):
        pytest.skip("no CAM there")
    assert method.is_linear
    net, x = network(head), images()

    class ByDifference(method):
        is_linear = False

    for layer in ("act",) if method is CAM else ("act", "features"):
        found = method(net, layer)(x, target=TARGET, contrast=contrast).heatmap
        close(found, ByDifference(net, layer)(x, target=TARGET, contrast=contrast).heatmap)


@pytest.mark.parametrize("method", [GradCAMPlusPlus, LayerCAM, ScoreCAM])
def test_where_the_roads_differ_the_difference_of_maps_is_taken(method):
    assert not method.is_linear
    net, x = network("mlp"), images()

    class InTheScore(method):
        is_linear = True

    explainer = method(net, "act")
    found = explainer(x, target=1, contrast=2).heatmap
    close(found, explainer(x, target=1).heatmap - explainer(x, target=2).heatmap)
    assert not torch.allclose(found, InTheScore(net, "act")(x, target=1, contrast=2).heatmap)


# --- how often the network is asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize("contrast", [None, "weighted"])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_score_cam_runs_one_image_per_channel_for_any_number_of_questions(batch_size, contrast):
    net, x = network("mlp"), images()
    explainer = ScoreCAM(net, "act", batch_size=batch_size)
    sizes, handle = forwards_of(net)
    explainer(x)  # looks the layer up
    sizes.clear()
    explainer.classes(x, k=4, contrast=contrast)
    handle.remove()
    assert sizes == ([3, 2, 8, 8, 2] if batch_size is None else [3, 2, 5, 5, 5, 3])


@pytest.mark.parametrize("contrast", [None, "weighted"])
def test_ablation_cam_behind_one_linear_layer_runs_only_the_first_pass(contrast):
    net, x = network("pooled"), images()
    explainer = AblationCAM(net, "act")
    sizes, handle = forwards_of(net)
    explainer(x)  # looks the layer up
    sizes.clear()
    explainer.classes(x, k=4, contrast=contrast)
    handle.remove()
    assert sizes == [3]


@pytest.mark.parametrize("contrast", [None, "weighted"])
def test_ablation_cam_runs_the_part_before_the_layer_once_per_chunk(contrast):
    net, x = network("mlp"), images(2)
    with torch.no_grad():
        net.features[3].bias += 5
        net.features[3].weight[0], net.features[3].bias[0] = 0, -1  # a channel that is off needs no ablation
    explainer = AblationCAM(net, "act", batch_size=3)
    sizes, handle = forwards_of(net)
    behind, other = forwards_of(net.head)
    explainer(x)  # looks the layer up
    sizes.clear(), behind.clear()
    explainer.classes(x, k=4, contrast=contrast)
    handle.remove()
    other.remove()
    assert sizes == [2, 2, 1, 1, 1, 1]
    assert behind == [2, 2, 4, 3, 4, 3]  # 5 ablations, and the unchanged activation with each chunk


class Bypassed(nn.Module):
    """The layer's output meets what came before it, in a sum or in a concatenation."""

    def __init__(self, join):
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.layer, self.join = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 6, 1), join
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(4)).double()
        self.double()(images())

    def forward(self, x):
        before = self.stem(x)
        return self.head(self.join(before, self.layer(before)))


@sampled(one_in=3)
@pytest.mark.filterwarnings("ignore:.*of the gradient.*flows past:contrex.errors.LayerWarning")
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("join", "sizes"),
    [
        (lambda before, a: before + a, [3, 2, 1, 1, 1]),
        (lambda before, a: torch.cat([before, a], 1), [3, 2, 1, 7, 7, 7]),  # found out in the first chunk
        (lambda before, a: a.reshape(len(before), 6, -1, a.shape[3]), [3, 2, 1, 7, 7, 7]),
    ],
)
def test_ablation_cam_where_the_layer_is_bypassed(join, sizes, score):
    net, x = Bypassed(join), images()
    explainer = AblationCAM(net, "layer")
    found, handle = forwards_of(net)
    heatmap = explainer(x, target=TARGET, score=score).heatmap
    handle.remove()
    assert found == [1, *sizes]  # the first looks the layer up
    for index, t in enumerate(TARGET):
        before = net.stem(x[index : index + 1]).detach()

        def score_of(a, before=before, t=t):
            return SCORES[score](net.head(net.join(before, a[None])))[0, t].item()

        close(heatmap[index], oracles.ablation_cam(net.layer(before).detach()[0], score_of))


def test_ablation_cam_of_tokens_ablates_a_feature_in_the_cells_only():
    """[N,T,D] behind a class token, which keeps its value."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 5, 4, stride=4), nn.LayerNorm(5)
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(65, 4), nn.Tanh())
            self.double()

        def forward(self, x):
            cells = self.conv(x).flatten(2).mT
            return self.head(self.norm(torch.cat([torch.ones(len(x), 1, 5).to(x), cells], 1)))

    net, x = Tokens(), images(2, (12, 16))
    why = AblationCAM(net, "norm")(x, target=1)
    assert why.heatmap.shape == (2, 3, 4)
    for index in range(2):
        tokens = net.norm(
            torch.cat([torch.ones(1, 1, 5).to(x), net.conv(x[index : index + 1]).flatten(2).mT], 1)
        ).detach()
        grid = tokens[0, 1:].mT.reshape(5, 3, 4)

        def score_of(a, tokens=tokens):
            return net.head(torch.cat([tokens[:, :1], a.flatten(1).mT[None]], 1))[0, 1].item()

        close(why.heatmap[index], oracles.ablation_cam(grid, score_of))


# --- the promises that are theirs -----------------------------------------------------------------------------------


@sampled(one_in=3)
@pytest.mark.parametrize("method", NAMES)
def test_a_batch_of_mixed_targets_is_one_image_at_a_time(method):
    net, x = network("pooled"), images(4, (8, 20))
    explainer = EXPLAINERS[method](net)
    contrasts = (None, "weighted") if explainer.is_class_specific else (None,)
    for contrast in contrasts:
        whole = explainer(x, target=[0, 3, 1, 2], contrast=contrast).heatmap
        assert whole.shape == (4, 4, 10)
        for i, t in enumerate([0, 3, 1, 2]):
            close(whole[i], explainer(x[i : i + 1], target=t, contrast=contrast).heatmap[0])


@pytest.mark.parametrize("method", ["xgrad_cam", "grad_cam_plus_plus", "layer_cam", "eigen_cam", "ablation_cam"])
def test_several_layers_from_one_pass(method):
    net, x = network("mlp", inplace=True), images()
    several = EXPLAINERS[method](net).layers(x, ["act", "features"], target=1)
    for layer, why in several.items():
        close(why.heatmap, EXPLAINERS[method](net, layer)(x, target=1).heatmap)


@pytest.mark.parametrize("bias", [0.0, -1e4, -1e9])
def test_the_closed_form_is_left_where_a_head_clips_beside_a_class_that_is_switched_off(bias):
    """Believed for images whose pooled channels are above 0, where the ReLU behind them does nothing."""
    net, x = network("pooled"), images(2)
    net.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), net.head.fc)
    net.act, explainer = nn.Identity(), HiResCAM(net, "features")
    with torch.no_grad():
        net.head[3].bias[3] = bias
        net.features[3].bias.fill_(5.0)
        explainer(x, target=0)
        assert explainer._head._verified is not None
        net.features[3].bias.copy_(torch.tensor([5.0, -5, 5, -5, 5, 5]))
    found = explainer(x, target=0)
    close(found.heatmap, HiResCAM(net, "features")(x, target=0).heatmap)
    maps = net.features(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(maps)[:, 0].sum(), maps)
    close(found.heatmap, (gradient * maps).sum(1).detach())


@sampled(one_in=3)
@pytest.mark.parametrize("method", [CAM, XGradCAM, GradCAMPlusPlus, LayerCAM])
@pytest.mark.parametrize("contrast", [None, "weighted"])
def test_a_loss_on_the_map_has_the_right_gradient(method, contrast):
    net, x = network("pooled" if method is CAM else "mlp"), images(2, (4, 6))
    net.act, net.features[1] = nn.Softplus(), nn.Softplus()
    explainer = method(net, "features" if method is not CAM else "act")
    explainer(x, target=1, differentiable=True)  # the first call verifies the closed form
    weight = net.features[2].weight

    def loss(step):
        with torch.no_grad():
            weight.add_(step)
            why = explainer(x, target=1, contrast=contrast)
            weight.sub_(step)
        return (why.heatmap**2).sum()

    why = explainer(x, target=1, contrast=contrast, differentiable=True)
    (gradient,) = torch.autograd.grad((why.heatmap**2).sum(), weight)
    place = int(gradient.abs().argmax())
    step = torch.zeros_like(weight).flatten().index_fill(0, torch.tensor(place), 1e-5).reshape(weight.shape)
    slope = (loss(step) - loss(-step)) / 2e-5
    assert gradient.flatten()[place].item() == pytest.approx(slope.item(), rel=1e-5)


@pytest.mark.parametrize("method", [EigenCAM, ScoreCAM, AblationCAM])
def test_those_without_a_differentiable_map_name_some_that_have(method):
    with pytest.raises(NotDifferentiableError, match="GradCAM and HiResCAM have"):
        method(network())(images(), differentiable=True)


def test_arguments_are_checked():
    with pytest.raises(UnknownNameError, match="`variant` must be one of paper, published-code; got 'code'"):
        ScoreCAM(network(), variant="code")
    for method in (ScoreCAM, AblationCAM):
        with pytest.raises(ArgumentError, match="`batch_size` must be at least 1 image, got 0"):
            method(network(), batch_size=0)


# --- the peers ------------------------------------------------------------------------------------------------------


def by_grad_cam_package(name, net, x, target, *, to_layer=None):
    """The map of pytorch-grad-cam before it is rectified, scaled to [0, 1] and resized: weighted channels, summed."""
    pgc = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    seen = {}

    class Seen(getattr(pgc, name)):
        def get_cam_image(self, *args, **kwargs):
            seen["heatmap"] = super().get_cam_image(*args, **kwargs)
            return seen["heatmap"]

    with Seen(model=net, target_layers=[to_layer or net.act]) as cam:
        cam(input_tensor=x, targets=[targets.ClassifierOutputTarget(target)] * len(x))
    return torch.as_tensor(seen["heatmap"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("head", ["pooled", "mlp"])
@pytest.mark.parametrize("name", ["XGradCAM", "LayerCAM", "AblationCAM"])
def test_agrees_with_pytorch_grad_cam(name, head):
    net, x = network(head).float(), images(2, (16, 16)).float()
    expected = by_grad_cam_package(name, net, x, 2)
    why = {"XGradCAM": XGradCAM, "LayerCAM": LayerCAM, "AblationCAM": AblationCAM}[name](net, "act")(x, target=2)
    found = why.heatmap / (why.logits[:, 2, None, None] if name == "AblationCAM" else 1)
    close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_pytorch_grad_cam_on_grad_cam_plus_plus_where_gradients_are_large():
    """Its 1e-6 in the denominator is lost in gradients of the size 1 and decides for those of 1e-3."""
    net, x = network("mlp").float(), images(2, (16, 16)).float()
    for scale, same in ((1e3, True), (1.0, False)):
        with torch.no_grad():
            net.head[4].weight *= scale
        found = GradCAMPlusPlus(net, "act")(x, target=2).heatmap
        expected = by_grad_cam_package("GradCAMPlusPlus", net, x, 2)
        with torch.no_grad():
            net.head[4].weight /= scale
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(found.abs().max())) == same


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_pytorch_grad_cam_on_score_cam_where_masks_need_no_resizing():
    """It aligns corners when it upsamples, which moves every mask; the sum and the softmax are the same."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x = images(2).float()
    expected = by_grad_cam_package("ScoreCAM", net.eval(), x, 2, to_layer=net[1])
    close(ScoreCAM(net, "1")(x, target=2).heatmap, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_pytorch_grad_cam_on_eigen_cam_up_to_centring_and_sign():
    """It centres the cells first, so the maps are equal where the mean of every channel is zero."""
    net, x = network("mlp").float(), images(2, (16, 16)).float()
    net.act = nn.InstanceNorm2d(6)
    found, expected = EigenCAM(net, "act")(x).heatmap, by_grad_cam_package("EigenCAM", net, x, 2)
    sign = (found * expected).sum((1, 2), keepdim=True).sign()
    close(sign * found, expected, rtol=1e-4, atol=1e-5)
    net.act = nn.ReLU()
    found, expected = EigenCAM(net, "act")(x).heatmap, by_grad_cam_package("EigenCAM", net, x, 2)
    assert not torch.allclose(found.abs(), expected.abs(), rtol=0.1)
