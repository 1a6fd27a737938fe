"""The options of any explainer: averaged views and fused layers."""

from functools import partial

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain import EXPLAINERS, LayerExplainer
from contrex.explain.contract import CHECKS, check_contract
from contrex.explain.named import build_explainer, check_explainer
from contrex.explain.targets import Detection, Region, Several
from contrex.ops.heatmap import resize
from contrex.settings.combination import HOW_TO_FUSE, read_augment
from explain.networks import images, network, two_grids
from explain.test_targets import Detects, Segments
from oracles import cams, combined
from sampling import crossed

TARGET = [0, 1, 3]
ALL = "flip, scale(0.75, 1.5), times(0.9)"
AT_LAYER = [name for name, kind in EXPLAINERS.items() if issubclass(kind, LayerExplainer)]


# --- the definitions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "how"), crossed([contrex.GradCAM, contrex.LayerCAM], HOW_TO_FUSE, one_in=2))
def test_fused_layers(kind, how):
    net, x = two_grids(), images()
    by_layer = [kind(net, layer).classes(x, classes=range(4)).heatmap for layer in ("early", "late")]
    maps = [[combined.fused([one[n, k] for one in by_layer], how) for k in range(4)] for n in range(3)]
    cams.assert_contrasted(kind(net, fuse=f"{how}(early, late)"), x, TARGET, maps)


@pytest.mark.parametrize(
    "name", ["grad_cam", *(pytest.param(one, marks=pytest.mark.slow) for one in ("eigen_cam", "gradient", "layer_cam"))]
)
def test_averaged_views(name):
    net, x = network("mlp"), images(1)
    kind = EXPLAINERS[name]
    is_density = name != "eigen_cam"

    def map_of(image, k):
        return kind(net)(image, target=k).heatmap[0]

    maps = [
        [
            combined.averaged(image[None], partial(map_of, k=k), [0.75, 1.5], [0.9], is_density=is_density)
            for k in range(4)
        ]
        for image in x
    ]
    explainer = kind(net, augment=ALL)
    if kind.is_class_specific:
        cams.assert_contrasted(explainer, x, [3], maps)
    torch.testing.assert_close(explainer(x, target=1).heatmap, torch.stack([one[1] for one in maps]))


def test_a_contrast_keeps_the_weights_of_the_image_itself():
    net, x = network("mlp"), images()
    why = contrex.GradCAM(net, augment="flip")(x, target=TARGET, contrast="weighted")
    rows = [cams.contrasted([torch.eye(4)[k] for k in range(4)], y.tolist(), t, "weighted")
            for y, t in zip(why.logits, TARGET, strict=True)]  # fmt: skip
    maps = contrex.GradCAM(net, augment="flip").classes(x, classes=range(4)).heatmap
    torch.testing.assert_close(why.heatmap, torch.einsum("nk,nkhw->nhw", torch.stack(rows).double(), maps))
    torch.testing.assert_close(why.logits, net(x).detach())


def test_views_are_mirror_images_of_each_other():
    net, x = network("mlp"), images()
    explain = contrex.GradCAM(net, augment="flip")
    torch.testing.assert_close(explain(x.flip(3), target=1).heatmap, explain(x, target=1).heatmap.flip(2))


def test_what_has_a_place_moves_with_the_copy():
    """A region and a box are mirrored and enlarged as the image is, alone and in a sum."""
    net, x = Segments(), images()
    mask = torch.zeros(3, 8, 12)
    mask[0, :4, :3], mask[1, 2:, 1:5], mask[2, 5:, 6:] = 1, 1, 1
    plain, mirrored = (Region(where, 1) for where in (mask, mask.flip(-1)))
    for of, of_mirrored in ((plain, mirrored), (Several([plain], [2.0]), Several([mirrored], [2.0]))):
        maps = [
            contrex.HiResCAM(net, "act")(x, score=of).heatmap,
            contrex.HiResCAM(net, "act")(x.flip(3), score=of_mirrored).heatmap.flip(2),
        ]
        found = contrex.HiResCAM(net, "act", augment="flip")(x, score=of).heatmap
        torch.testing.assert_close(found, sum(maps) / 2)
    large = torch.nn.functional.interpolate(x, (16, 24), mode="bilinear", antialias=True)
    net = Detects()
    box = torch.tensor([[1.0, 1.0, 7.0, 6.0]]).expand(3, 4)
    for view, copies, moved in (
        ("flip", x.flip(3), torch.tensor([5.0, 1.0, 11.0, 6.0])),
        ("scale(2.0)", large, 2 * box[0]),
    ):
        maps = [contrex.Gradient(net)(x, score=Detection(box)).heatmap]
        of_copy = contrex.Gradient(net)(copies, score=Detection(moved)).heatmap
        if view == "flip":
            maps.append(of_copy.flip(2))
        else:
            maps.append(4 * resize(of_copy, (8, 12)))
        found = contrex.Gradient(net, augment=view)(x, score=Detection(box)).heatmap
        torch.testing.assert_close(found, sum(maps) / 2)


@pytest.mark.parametrize("augment", ["flip", "scale(1.5)"])
def test_a_function_that_reads_a_place_would_ask_copies_about_another(augment):
    """In a map, in a sum of scores, or among detections; what reads no place is explained as ever."""
    net, x = Segments(), images()
    explain = contrex.HiResCAM(net, "act", augment=augment)

    def left(output):
        return output["out"][:, 1, :, :4].mean((1, 2))

    def everywhere(output):
        return output["out"][:, 1].mean((1, 2))

    for score, contrast in ((left, None), (Several([left]), None), (everywhere, left)):
        with pytest.raises(ArgumentError, match=r"`augment` moves .* `score` left reads a place of what the net"):
            explain(x, score=score, contrast=contrast)
    contrex.HiResCAM(net, "act", augment="times(0.9)")(x, score=left)
    boxes = contrex.Gradient(Detects(), augment=augment)
    with pytest.raises(ArgumentError, match="`score` a function reads a place"):
        boxes(x, score=lambda found: torch.stack([(one["scores"] * one["boxes"][:, 0]).sum() for one in found]))
    assert boxes(x, score=lambda found: torch.stack([one["scores"].amax() for one in found])).heatmap.any()
    # the same question, where both can ask it
    torch.testing.assert_close(
        explain(x, score=everywhere).heatmap, explain(x, score=Region(torch.ones(8, 12), 1)).heatmap
    )


def test_a_function_of_logits_beside_maps_is_averaged():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("mlp")

        def forward(self, x):
            return {"logits": self.net(x), "maps": x}

    net, x = Both(), images()
    expected = contrex.GradCAM(net.net, augment="flip, scale(0.5)")(x, target=1).heatmap
    found = contrex.GradCAM(net, augment="flip, scale(0.5)")(x, score=lambda output: output["logits"][:, 1]).heatmap
    torch.testing.assert_close(found, expected)


def test_maps_beside_the_images_would_stay():
    class Guided(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("mlp")

        def forward(self, x, where):
            return self.net(x * where[:, None])

    net, x, where = Guided(), images(), torch.rand(3, 8, 12, dtype=torch.float64)
    for augment in ("flip", "scale(1.5)"):
        with pytest.raises(
            ArgumentError, match=r"`augment` moves what is in the images, and `inputs` 0 has their sides"
        ):
            contrex.Gradient(net, augment=augment)(x, inputs=where)
    assert contrex.Gradient(net, augment="times(0.9)")(x, inputs=where).heatmap.shape == (3, 8, 12)


def test_copies_of_another_size_are_explained_at_the_same_layer():
    """Where no layer is named, one is chosen by the image's size, and larger copies would have another."""
    net, x = two_grids(), images(size=(2, 2))
    why = contrex.GradCAM(net, augment="scale(2.0)")(x, target=1)
    assert why.layer == "early"
    assert contrex.GradCAM(net)(images(size=(4, 4))).layer == "late"
    torch.testing.assert_close(why.heatmap, contrex.GradCAM(net, "early", augment="scale(2.0)")(x, target=1).heatmap)
    x = images(size=(16, 24))
    found, named = (contrex.GradCAM(net, fuse=fuse, augment="scale(0.5)")(x) for fuse in ("mean", "mean(early, late)"))
    assert (found.layer, found.grid) == (named.layer, named.grid)
    torch.testing.assert_close(found.heatmap, named.heatmap)


def test_shares_are_shares_whatever_they_are_called():
    """ShapleyCAM is Grad-CAM, and relevance gradient times input, where their docs say so: copies count as much."""
    net, x = network(), images()
    shapley, grad = (
        kind(net, augment="scale(2.0)")(x, target=1).heatmap for kind in (contrex.ShapleyCAM, contrex.GradCAM)
    )
    torch.testing.assert_close(shapley, grad)
    torch.manual_seed(3)
    bare = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4, bias=False),
    ).double()
    options = {"augment": "scale(2.0)"}
    relevance = contrex.LRP(bare, "input", rules="epsilon", **options)(x, target=1).heatmap
    torch.testing.assert_close(
        relevance, contrex.GradientTimesInput(bare, **options)(x, target=1).heatmap, rtol=1e-3, atol=1e-6
    )


def test_relevance_of_a_layer_is_averaged_at_that_layer():
    net, x = network("mlp"), images()
    found = contrex.LRP(net, rules="epsilon", augment="flip").layers(x, ["act"], target=1)["act"].heatmap
    torch.testing.assert_close(found, contrex.LRP(net, "act", rules="epsilon", augment="flip")(x, target=1).heatmap)


@pytest.mark.parametrize(
    ("how", "check"),
    crossed([{"augment": "flip, times(0.9)"}, {"augment": "scale(1.5)"}, {"fuse": "mean(features.0, act)"}], CHECKS,
            one_in=8),
)  # fmt: skip
def test_the_contract_holds(how, check):
    CHECKS[check](partial(contrex.GradCAM, **how), network("mlp"), images())


@pytest.mark.slow
@pytest.mark.parametrize("method", EXPLAINERS)
@pytest.mark.parametrize("option", ["augment", "fuse"])
def test_any_explainer_takes_them(method, option):
    from explain.test_contract import CHEAPER, small_network

    net, x = small_network(method)
    kind = CHEAPER.get(method, EXPLAINERS[method])
    if option == "augment":
        check_contract(partial(kind, augment="flip"), net, x, tell=None)
    elif method in AT_LAYER and method not in ("cam", "refine_cam"):
        options = {"layer": None} if method == "lrp" else {}
        check_contract(partial(kind, **options, fuse="max(features.1, act)"), net, x, tell=None)


# --- where they are told --------------------------------------------------------------------------------------------


def test_the_text_of_an_explainer_tells_them_and_the_record_has_them():
    net, x = two_grids(), images()
    text = "grad_cam(augment='times( 0.9 ),flip', fuse='mean( early,late )')"
    why = build_explainer(net, text)(x)
    made = contrex.GradCAM(net, augment="flip, times(0.9)", fuse="mean(early, late)")
    torch.testing.assert_close(why.heatmap, made(x).heatmap, rtol=0, atol=0)
    assert why.explainer == "grad_cam(augment='flip, times(0.9)', fuse='mean(early, late)')"
    assert why.options == {"augment": "flip, times(0.9)", "fuse": "mean(early, late)"}
    assert (why.layer, why.grid, why.unit) == ("early, late", (8, 12), "")
    again = build_explainer(net, why.explainer)(x)
    torch.testing.assert_close(again.heatmap, why.heatmap, rtol=0, atol=0)
    assert contrex.GradCAM(net)(x).explainer == "grad_cam"
    assert not contrex.GradCAM(net)(x).options
    check_explainer(text)


class Plain(contrex.ActivationExplainer):
    """An explainer whose constructor knows nothing of options."""

    def __init__(self, model, layer=None):
        super().__init__(model, layer)

    def combine(self, activation, gradient):
        return (activation * gradient).sum(1)


def test_an_explainer_from_outside_takes_them_too(monkeypatch):
    net, x = two_grids(), images()
    monkeypatch.setitem(EXPLAINERS, "plain", Plain)
    found = build_explainer(net, "plain(augment='flip', fuse='max(early, late)')")(x).heatmap
    expected = contrex.HiResCAM(net, augment="flip", fuse="max(early, late)")(x).heatmap
    torch.testing.assert_close(found, expected)


def test_the_layer_that_was_explained_is_that_of_the_image_itself():
    explain = contrex.GradCAM(two_grids(), augment="scale(0.5)")
    assert explain(images()).place == "late, 4 x 6"
    assert explain.place == "late, 4 x 6"
    layers = explain.layers(images(), ["early", "late"])
    torch.testing.assert_close(layers["late"].heatmap, explain(images()).heatmap)
    alone = contrex.GradCAM(explain.model, fuse="mean(early, late)").layers(images(), ["late"])
    torch.testing.assert_close(alone["late"].heatmap, contrex.GradCAM(explain.model)(images()).heatmap)


def test_layers_are_found_where_none_are_named():
    net, x = two_grids(), images(size=(16, 24))
    why = contrex.RefineCAM(net)(x)
    assert (why.layer, why.explainer, why.options) == ("early, late", "refine_cam", {"fuse": "product"})
    same = contrex.GradCAMPlusPlus(net, fuse="product(early, late)")(x)
    torch.testing.assert_close(why.heatmap, same.heatmap)
    with pytest.raises(LayerError, match=r"`fuse` without names takes layers of several resolutions, and Net has one"):
        contrex.RefineCAM(network("mlp"))(images())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"augment": "flop"}, ArgumentError, r"`augment` must be some of flip, scale\(0.75, 1.25\).*; got 'flop'"),
        ({"augment": ""}, ArgumentError, "`augment` must be some of flip"),
        ({"augment": "flip, flip"}, ArgumentError, "`augment` must be some of flip"),
        ({"augment": "scale"}, ArgumentError, "`augment` must be some of flip"),
        ({"augment": 3}, ArgumentError, "`augment` must be some of flip.*; got 3"),
        ({"augment": "scale(0)"}, ArgumentError, r"`augment` 'scale\(0\)': scale needs numbers above 0, and not 1"),
        ({"augment": "times('a')"}, ArgumentError, "times needs numbers above 0, and not 1, the image itself"),
        ({"augment": "times()"}, ArgumentError, "times needs numbers above 0"),
        ({"fuse": "mean(act"}, ArgumentError, r'`fuse` must be as in "mean\(layer3, layer4\)" or "product"; got'),
        ({"fuse": "means"}, UnknownNameError, "`fuse` must be one of mean, max, product, layer_cam; got 'means'"),
        ({"fuse": "mean(act)"}, ArgumentError, "must name several different layers, or none: then they are found"),
        ({"fuse": "mean(act, act)"}, ArgumentError, "must name several different layers"),
        ({"fuse": "mean(act, features.9)"}, UnknownNameError, "`layer` of Net must be one of .*; got 'features.9'"),
        ({"fuse": "mean", "layer": "act"}, ArgumentError, "`layer` and `fuse` 'mean' both choose where grad_cam looks"),
    ],
)
def test_nonsense_is_refused(options, error, message):
    text = f"grad_cam({', '.join(f'{name}={value!r}' for name, value in options.items())})"
    with pytest.raises(error, match=message):
        contrex.GradCAM(network("mlp"), **options)
    with pytest.raises(error, match=message):
        build_explainer(network("mlp"), text)


def test_what_means_nothing_is_refused():
    for make in (lambda: contrex.Gradient(network(), fuse="mean"), lambda: check_explainer("gradient(fuse='mean')")):
        with pytest.raises(ArgumentError, match="`fuse` 'mean' means nothing to gradient, which explains no layer"):
            make()
    with pytest.raises(UnknownNameError, match="option of grad_cam must be one of layer, augment, fuse; got 'augmen'"):
        check_explainer("grad_cam(augmen='flip')")
    with pytest.raises(ArgumentError, match=r"both choose where lrp looks: give one of them \(lrp with layer=None\)"):
        contrex.LRP(network("mlp"), fuse="mean")
    with pytest.raises(ArgumentError, match="both choose where grad_cam looks"):
        build_explainer(network("mlp"), "grad_cam(fuse='mean')", "act")

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("mlp")

        def forward(self, x):
            return self.net(x.reshape(-1, 3, 8, 12))

    with pytest.raises(ArgumentError, match=r"`augment` scale\(1.5\): Fixed takes no images of 12 x 18 .*: leave the"):
        contrex.Gradient(Fixed(), augment="scale(1.5)")(images())


def test_the_library_of_views_has_six():
    """Those of pytorch-grad-cam's `aug_smooth`, the image itself among them."""
    assert len(read_augment("flip, times(0.9, 1.1)").views) == 5


# --- the peers ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_torch_cam_on_refine_cam():
    """With Grad-CAM inside, whose rectified maps have zeros: it takes the smallest value off each map."""
    methods = pytest.importorskip("torchcam.methods")
    if not hasattr(methods, "RefineCAM"):
        pytest.skip("this version of torch-cam has no RefineCAM")
    net, x = two_grids().float(), images(2).float()
    with methods.RefineCAM(net, ["early", "late"], base_method=methods.GradCAM) as cam:
        (expected,) = cam([1, 1], net(x))
    found = contrex.GradCAM(net, fuse="product(early, late)")(x, target=1).positive().heatmap
    assert (contrex.GradCAM(net, "late")(x, target=1).heatmap.amin((1, 2)) < 0).all()
    torch.testing.assert_close(found / found.amax((1, 2), keepdim=True), expected, rtol=1e-4, atol=1e-5)
