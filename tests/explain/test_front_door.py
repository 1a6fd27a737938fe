"""What a call promises: shapes, types, no side effects, every way of calling, errors that name the fix."""

import contextlib
import threading

import numpy as np
import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain import EXPLAINERS
from explain.networks import HEADS, images, network
from sampling import crossed, sampled

METHODS = ("grad_cam", "hires_cam", "gradient")
"""One of each kind that differentiates; `test_contract` puts every method through every promise."""
every_method = pytest.mark.parametrize("method", METHODS)
every_head = pytest.mark.parametrize("head", HEADS)


def state_of(net):
    """Everything of a model and of the process that a call must leave alone."""
    return {
        "grad": [p.grad for p in net.parameters()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "parameters": [p.detach().clone() for p in net.parameters()],
        "buffers": [b.clone() for b in net.buffers()],
        "training": [m.training for m in net.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()],
        "rng": torch.get_rng_state(),
        "grad_mode": torch.is_grad_enabled(),
    }


def assert_same_state(before, after):
    for key, value in before.items():
        if key in ("parameters", "buffers"):
            assert all(torch.equal(a, b) for a, b in zip(value, after[key], strict=True)), key
        elif key == "rng":
            assert torch.equal(value, after[key]), key
        else:
            assert value == after[key], key


@every_method
def test_explains_in_eval_mode_whatever_mode_the_model_is_in(method):
    net, x = network("dropout"), images()
    expected = EXPLAINERS[method](net)(x)
    net.train()
    found = EXPLAINERS[method](net)(x)
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(found.logits, expected.logits)


@every_method
def test_returns_what_it_promises(method):
    net, x = network().float(), images(2, (8, 12)).float()
    why = EXPLAINERS[method](net)(x)
    size = (8, 12) if method == "gradient" else (4, 6)
    assert why.heatmap.shape == (2, *size)
    assert why.heatmap.dtype == torch.float32
    assert why.logits.shape == (2, 4)
    torch.testing.assert_close(why.logits, net(x).detach())
    assert why.target.tolist() == why.logits.argmax(1).tolist()
    assert not why.heatmap.requires_grad
    assert not why.logits.requires_grad
    assert (why.heatmap < 0).any()
    assert (why.heatmap > 0).any()
    assert why.positive().heatmap.min() == 0
    assert why.resize((5, 7)).heatmap.shape == (2, 5, 7)
    torch.testing.assert_close(why.probability, why.logits.softmax(1).amax(1))


@every_method
def test_top_prediction_is_the_default_target_and_functions_of_the_logits_serve(method):
    net, x = network(), images(4)
    explainer = EXPLAINERS[method](net)
    top = net(x).argmax(1)
    expected = explainer(x, target=top).heatmap
    torch.testing.assert_close(explainer(x).heatmap, expected)
    torch.testing.assert_close(explainer(x, target=lambda logits: logits.argmax(1)).heatmap, expected)
    assert not torch.allclose(explainer(x, target=(top + 1) % 4).heatmap, expected)


@pytest.mark.parametrize(("method", "head"), crossed(METHODS, HEADS, one_in=2))
def test_every_way_of_calling_gives_the_same_map(method, head):
    net, x = network(head), images()
    expected = EXPLAINERS[method](net)(x, contrast="weighted").heatmap
    for context in (torch.no_grad, torch.inference_mode, contextlib.nullcontext):
        with context():
            found = EXPLAINERS[method](net)(x.clone(), contrast="weighted", target=net(x).argmax(1))
        torch.testing.assert_close(found.heatmap, expected)
        assert not found.heatmap.is_inference()
    net.requires_grad_(False)
    torch.testing.assert_close(EXPLAINERS[method](net)(x, contrast="weighted").heatmap, expected)


@every_method
def test_in_place_relu_behind_the_layer(method):
    options = {} if method == "gradient" else {"layer": "features"}
    x = images()
    expected = EXPLAINERS[method](network("mlp"), **options)(x).heatmap
    found = EXPLAINERS[method](network("mlp", inplace=True), **options)(x).heatmap
    torch.testing.assert_close(found, expected)


@sampled(one_in=2)
@every_method
def test_wrapped_models(method):
    net, x = network(), images()
    expected = EXPLAINERS[method](net)(x).heatmap
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    for wrapped in (compiled, nn.DataParallel(net), nn.DataParallel(compiled)):
        torch.testing.assert_close(EXPLAINERS[method](wrapped)(x).heatmap, expected)


def test_plain_forward_in_another_thread_is_not_touched():
    """A hook set by one thread must not switch gradients on, or keep activations, in another."""
    net, x = network("mlp"), images()
    seen, stop = [], threading.Event()

    def infer():
        with torch.inference_mode():
            while not stop.is_set():
                seen.append(net(x).requires_grad)

    thread = threading.Thread(target=infer)
    thread.start()
    for _ in range(20):
        contrex.GradCAM(net, "act")(x)
    stop.set()
    thread.join()
    assert seen
    assert not any(seen)


def test_nothing_before_the_layer_is_recorded():
    """Saved tensors of a last-block Grad-CAM: none in closed form, only the head's otherwise."""
    for head, most in (("pooled", 2_000), ("mlp", 10_000)):
        net, x = network(head).float(), torch.randn(4, 3, 64, 64)
        explainer = contrex.GradCAM(net, "act")
        explainer(x)
        saved = 0

        def pack(tensor):
            nonlocal saved
            saved += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            explainer(x)
        activation = 4 * 6 * 32 * 32 * 4
        assert saved <= most + (0 if head == "pooled" else 2 * activation)


# --- differentiable -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "head", "contrast"),
    crossed(METHODS, HEADS, [None, "mean", "max", "weighted", "nearest(alpha=0.6)"], one_in=5),
)
def test_a_loss_on_maps_reaches_every_parameter_with_the_right_gradient(method, head, contrast):
    """Against finite differences of the non-differentiable call, parameter by parameter."""
    net, x = network(head), images(2, (4, 6))
    for module in net.modules():  # smooth, so that finite differences mean something
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus())
    explainer = EXPLAINERS[method](net)
    target = torch.tensor([0, 2])

    def loss(differentiable):
        why = explainer(x, target=target, contrast=contrast, differentiable=differentiable)
        return (why.heatmap**2).sum() + why.logits.sum()

    loss(True)  # the first call verifies the closed form; the gradient is taken from a later one
    parameters = dict(net.named_parameters())
    gradients = torch.autograd.grad(loss(True), list(parameters.values()))
    flattened = [gradient.flatten() for gradient in gradients]
    for (name, parameter), gradient in zip(parameters.items(), flattened, strict=True):
        index = int(gradient.abs().argmax())
        flat = parameter.data.view(-1)
        with torch.no_grad():
            flat[index] += 1e-5
            up = loss(False)
            flat[index] -= 2e-5
            down = loss(False)
            flat[index] += 1e-5
        assert gradient[index].item() == pytest.approx(((up - down) / 2e-5).item(), rel=2e-4, abs=1e-7), name


def test_differentiable_call_is_a_training_forward():
    """In train mode batch norm uses the batch and moves its statistics, as the loss beside it needs."""
    net, x = network().train(), images()
    before = net.features[3].running_mean.clone()
    why = contrex.HiResCAM(net)(x, differentiable=True)
    assert not torch.equal(net.features[3].running_mean, before)
    fresh = network().train()
    torch.testing.assert_close(why.logits, fresh(x))


def test_dropout_between_pooling_and_classifier_is_not_taken_for_the_closed_form():
    """In eval mode the form holds; the verdict must not be carried over to train mode."""
    net, x = network("dropout"), images()
    explainer = contrex.HiResCAM(net, "act")
    for _ in range(2):
        explainer(x)
    net.train()
    torch.manual_seed(3)
    found = explainer(x, target=1, differentiable=True).heatmap
    torch.manual_seed(3)
    activation = net.act(net.features(x))
    (gradient,) = torch.autograd.grad(net.head(activation)[:, 1].sum(), activation)
    torch.testing.assert_close(found.detach(), (activation * gradient).sum(1).detach())


def test_a_head_that_is_linear_for_some_images_only_is_found_out():
    """It clips pooled features: linear for the first, dim batch, not for the second, bright one."""

    class Clipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, a):
            return self.fc(a.mean((2, 3)).clamp(max=0.5))

    net = network()
    net.head = Clipped().double()
    dim, bright = images() * 0.01, images() * 100
    explainer = contrex.HiResCAM(net, "act")
    for _ in range(2):
        explainer(dim)
    activation = net.act(net.features(bright)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(activation)[:, 1].sum(), activation)
    assert (activation.mean((2, 3)) > 0.5).any()
    torch.testing.assert_close(explainer(bright, target=1).heatmap, (activation * gradient).sum(1).detach())


@pytest.mark.parametrize("differentiable", [False, True])
def test_a_log_softmax_head_is_found_out_although_contrasts_do_not_see_it(differentiable):
    net, x = network(), images()
    explainer, fc = contrex.HiResCAM(net, "act"), net.head
    net.head = nn.Sequential(fc, nn.LogSoftmax(1))
    explainer(x, contrast="mean", differentiable=differentiable)
    found = explainer(x, target=1, differentiable=differentiable).heatmap
    activation = net.act(net.features(x)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(activation)[:, 1].sum(), activation)
    torch.testing.assert_close(found.detach(), (activation * gradient).sum(1).detach())


def test_a_model_that_changes_its_input_in_place_leaves_the_images_alone():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("mlp")

        def forward(self, x):
            return self.net(x.mul_(2))

    for kind in map(EXPLAINERS.get, METHODS):
        x = images()
        kind(Doubling())(x)
        assert torch.equal(x, images())
        expected = kind(network("mlp"))(images() * 2).heatmap
        scale = 2 if kind is contrex.Gradient else 1
        torch.testing.assert_close(kind(Doubling())(x).heatmap, scale * expected)


def test_a_layer_that_no_gradient_reaches_is_refused():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("mlp")

        def forward(self, x):
            a = self.net.act(self.net.features(x))
            with torch.no_grad():
                return self.net.head(a)

    with pytest.raises(LayerError, match=r"no gradient reaches `layer` 'net.act': Frozen runs what follows it without"):
        contrex.GradCAM(Frozen(), "net.act")(images())


def test_an_exchanged_classifier_is_verified_anew():
    net, x = network(), images()
    explainer = contrex.GradCAM(net, "act")
    explainer(x)
    explainer(x)
    net.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 4)).double()
    torch.testing.assert_close(explainer(x, target=1).heatmap, contrex.GradCAM(net, "act")(x, target=1).heatmap)
    net.head = network("mlp").head
    torch.testing.assert_close(explainer(x, target=1).heatmap, contrex.GradCAM(net, "act")(x, target=1).heatmap)


# --- layers and errors ----------------------------------------------------------------------------------------------


def test_layer_by_name_by_module_and_found():
    net, x = network(), images()
    by_name, by_module, found = contrex.GradCAM(net, "act"), contrex.GradCAM(net, net.act), contrex.GradCAM(net)
    expected = by_name(x).heatmap
    torch.testing.assert_close(by_module(x).heatmap, expected)
    torch.testing.assert_close(found(x).heatmap, expected)
    assert (by_name.layer, by_module.layer, found.layer) == ("act", "act", "act")


def test_unsuitable_layers_are_refused():
    net, x = network("mlp"), images()
    with pytest.raises(
        UnknownNameError, match=r"`layer` of Net must be one of features, act, head; got 'feature'. Did"
    ):
        contrex.GradCAM(net, "feature")
    with pytest.raises(LayerError, match="must be a module of Net, got a foreign ReLU"):
        contrex.GradCAM(net, nn.ReLU())
    with pytest.raises(LayerError, match=r"must give a feature map, 'head.4' \(Linear\) gives a tensor \[1, 4\]"):
        contrex.GradCAM(net, "head.4")(x)
    net.unused = nn.ReLU()
    with pytest.raises(LayerError, match="'unused' did not run"):
        contrex.GradCAM(net, "unused")(x)
    shared = nn.Sequential(nn.Conv2d(3, 3, 1), act := nn.ReLU(), nn.Conv2d(3, 3, 1), act, network().head)
    shared[4].fc = nn.Linear(3, 4)
    with pytest.raises(LayerError, match="ran 2 times in one pass"):
        contrex.GradCAM(shared, "1")(x.float())


class Tokens(nn.Module):
    """A conv, a norm over tokens or over a channels-last grid, and the mean of the cells, behind `prefix` tokens."""

    def __init__(self, *, last=False, prefix=0):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 16, 4, stride=4), nn.LayerNorm(16), nn.Linear(16, 4)
        self.last, self.prefix = last, prefix

    def forward(self, x):
        a = self.conv(x).permute(0, 2, 3, 1)
        if not self.last:
            a = a.flatten(1, 2)
            a = torch.cat([torch.ones(len(a), self.prefix, 16), a], 1)
        a = self.norm(a)
        return self.fc(a.flatten(1, -2)[:, self.prefix :].mean(1))


@pytest.mark.parametrize("options", [{"last": True}, {}, {"prefix": 1}, {"prefix": 5}])
@pytest.mark.parametrize("layer", [None, "norm"])
def test_tokens_and_channels_last_grids_are_read_as_maps(options, layer):
    net, x = Tokens(**options), torch.randn(2, 3, 24, 32)
    explainer = contrex.HiResCAM(net, layer)
    why = explainer(x, target=1)
    cells = net.norm(net.conv(x).permute(0, 2, 3, 1)).detach()
    torch.testing.assert_close(why.heatmap, (cells * net.fc.weight[1].detach()).sum(-1) / 48)
    assert explainer.layer == "norm"


def test_an_output_that_is_no_grid_is_refused_unless_reshape_reads_it():
    net, x = Tokens(), torch.randn(2, 3, 32, 24)
    net.norm.register_forward_hook(lambda module, inputs, output: output[:, :47])  # a cell is missing
    with pytest.raises(LayerError, match=r"'norm' \(LayerNorm\) gives a tensor \[1, 47, 16\].*pass `reshape=`"):
        contrex.GradCAM(net, "norm")(x)
    maps = contrex.GradCAM(net, "norm", reshape=lambda tokens: tokens[:, :44].mT.reshape(2, 16, 11, 4))(x).heatmap
    assert maps.shape == (2, 11, 4)
    with pytest.raises(LayerError, match=r"`reshape` must give \[2,C,h,w\], it gave \[2, 47, 16\]"):
        contrex.GradCAM(net, "norm", reshape=lambda tokens: tokens)(x)


def test_window_and_head_axes_are_not_images():
    """Swin's windows and attention weights look like grids; their first axis is not the batch."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 16, 4, stride=4), nn.LayerNorm(16), nn.Linear(16, 4)

        def forward(self, x):
            a = self.conv(x)
            windows = a.unflatten(2, (2, -1)).unflatten(4, (2, -1)).permute(0, 2, 4, 3, 5, 1).flatten(0, 2)
            return self.fc(self.norm(windows).mean((1, 2)).unflatten(0, (len(x), -1)).mean(1))

    net, x = Windows(), torch.randn(2, 3, 32, 32)
    with pytest.raises(LayerError, match=r"'norm' \(LayerNorm\) gives a tensor \[4, 4, 4, 16\] for images \[1"):
        contrex.GradCAM(net, "norm")(x)
    explainer = contrex.GradCAM(net)
    assert explainer(x).heatmap.shape == (2, 8, 8)
    assert explainer.layer == "conv"


def test_the_class_token_takes_all_gradient_behind_the_last_attention():
    """So the automatic layer of a vision transformer is the norm before it, as in the literature."""
    timm = pytest.importorskip("timm")
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
    explainer = contrex.GradCAM(net)
    why = explainer(torch.randn(2, 3, 64, 64))
    assert explainer.layer == "blocks.11.norm1"
    assert why.heatmap.shape == (2, 4, 4)
    assert not why.empty.any()
    assert contrex.GradCAM(net, "blocks.11.norm2")(torch.randn(2, 3, 64, 64)).empty.all()


def test_a_classifier_of_zeros_does_not_send_the_search_to_the_stem():
    net = Tokens(prefix=1)
    nn.init.zeros_(net.fc.weight)
    with pytest.raises(LayerError, match=r"no gradient reaches any feature map of Tokens \(is its classifier still"):
        contrex.GradCAM(net)(torch.randn(1, 3, 32, 32))
    assert contrex.GradCAM(net, "norm")(torch.randn(1, 3, 32, 32)).empty.all()


def test_a_map_with_as_many_channels_as_classes_is_no_classifier():
    """Only one whose mean is the logits is (SqueezeNet's last convolution)."""
    net = network()
    net.head.fc = nn.Linear(6, 6).double()
    explainer = contrex.GradCAM(net)
    explainer(images())
    assert explainer.layer == "act"
    squeeze = nn.Sequential(nn.Conv2d(3, 7, 3), nn.Conv2d(7, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    explainer = contrex.GradCAM(squeeze)
    explainer(torch.randn(1, 3, 8, 8))
    assert explainer.layer == "0"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 8, 8), r"batch \[N,C,H,W\] with N >= 1, got \[3, 8, 8\]; add the batch axis"),
        (np.zeros((1, 3, 8, 8)), r"`images` must be a tensor, got ndarray: torch.from_numpy"),
        (torch.zeros(0, 3, 8, 8), "N >= 1"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "floating point, normalised as for the model; got torch.uint8"),
        ([1, 2], "got list"),
    ],
)
def test_unsuitable_images_are_refused(x, message):
    with pytest.raises(ArgumentError, match=message):
        contrex.GradCAM(network())(x)


def test_nan_never_becomes_a_heatmap():
    x = images()
    x[1, 0, 0, 0] = torch.nan
    with pytest.raises(ArgumentError, match="`images` must be finite, image 1 has NaN"):
        contrex.GradCAM(network())(x)


def test_models_without_logits_are_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)), x.amax((2, 3))

    with pytest.raises(ArgumentError, match=r"must return logits \[N,K\], Pair returned tuple \(a tensor \[3, 3\], a"):
        contrex.GradCAM(Pair())(images())
    with pytest.raises(ArgumentError, match=r"`model` must be a torch.nn.Module or a Classifier, got function"):
        contrex.GradCAM(lambda x: x)
    with pytest.raises(LayerError, match="no feature map"):
        contrex.GradCAM(nn.Sequential(nn.Flatten(), nn.Linear(288, 4)).double())(images())


def test_empty_maps_are_reported():
    net = network()
    with torch.no_grad():
        net.head.fc.weight.zero_()
    why = contrex.GradCAM(net)(images(2))
    assert why.empty.tolist() == [True, True]
    assert contrex.GradCAM(network())(images(2)).empty.tolist() == [False, False]


def test_show_draws_every_image_and_refuses_the_wrong_number():
    net, x = network(), images(2)
    figure = contrex.GradCAM(net)(x).show(x, mean=(0.5,), std=(0.2,), captions=["one", "two"])
    titles = [axis.get_title() for axis in figure.axes]
    assert "one" in titles
    assert "two" in titles
    assert sum("red for" in title for title in titles) == 2
    bars = [axis.get_ylim() for axis in figure.axes if not axis.get_title()]
    assert [low == -high for low, high in bars] == [True, True]
    with pytest.raises(ArgumentError, match="one per map"):
        contrex.GradCAM(net)(x).show(x[:1])
    with pytest.raises(ArgumentError, match="`captions` must be 2 texts"):
        contrex.GradCAM(net)(x).show(x, captions=["one"])


# --- many classes and many layers -----------------------------------------------------------------------------------


def calls_of(net):
    count = [0]
    handle = net.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    return count, handle


@pytest.mark.parametrize(("method", "head", "contrast"), crossed(METHODS, HEADS, [None, "weighted"], one_in=2))
def test_many_classes_from_one_forward_pass_are_the_single_ones(method, head, contrast):
    net, x = network(head), images()
    explainer = EXPLAINERS[method](net)
    explainer(x)
    count, handle = calls_of(net)
    many = explainer.classes(x, k=3, contrast=contrast)
    handle.remove()
    assert count[0] == 1
    assert torch.equal(many.target, many.logits.topk(3).indices)
    for place in range(3):
        one = explainer(x, target=many.target[:, place], contrast=contrast)
        torch.testing.assert_close(many.explanation(place).heatmap, one.heatmap)
    named = explainer.classes(x, classes=[2, 0], contrast=contrast)
    assert named.target.tolist() == [[2, 0]] * 3
    torch.testing.assert_close(named.heatmap[:, 1], explainer(x, target=0, contrast=contrast).heatmap)


@every_method
def test_contrasts_of_the_class_maps_are_those_of_the_scores(method):
    """Proposition 3: the difference of maps is the map of the difference."""
    net, x = network("mlp"), images()
    explainer = EXPLAINERS[method](net)
    many = explainer.classes(x, k=4)
    pair = explainer(x, target=many.target[:, 1], contrast=many.target[:, 3])
    torch.testing.assert_close(many.pair(1, 3).heatmap, pair.heatmap)
    torch.testing.assert_close(many.pairs()[:, 1, 3], pair.heatmap)
    torch.testing.assert_close(many.weighted()[:, 0], explainer(x, contrast="weighted").heatmap)


@pytest.mark.parametrize(
    ("method", "head"),
    crossed(
        ["grad_cam", "grad_cam_plus_plus", "layer_cam", "gradient", "guided_backprop", "full_grad", "score_cam"],
        ["pooled", "mlp"],
        one_in=2,
    ),
)
def test_several_contrasts_of_several_classes_from_one_pass(method, head):
    """Also methods that are not linear, whose contrast asks the graph of the pass once for each class."""
    net, x = network(head), images()
    explainer = contrex.explain.EXPLAINERS[method](net)
    explainer(x)
    count, handle = calls_of(net)
    contrasts = explainer.contrasts(x, [None, "weighted", "max"], 2)
    handle.remove()
    assert count[0] == 1 or method == "score_cam"
    for contrast, many in zip([None, "weighted", "max"], contrasts, strict=True):
        assert torch.equal(many.target, many.logits.topk(2).indices)
        for place in range(2):
            one = explainer(x, target=many.target[:, place], contrast=contrast)
            torch.testing.assert_close(many.explanation(place).heatmap, one.heatmap)


def test_classes_refuses():
    explainer = contrex.GradCAM(network())
    with pytest.raises(ArgumentError, match="`k` must be between 1 and 4, the model's classes; got 5"):
        explainer.classes(images())
    with pytest.raises(ArgumentError, match=r"`classes` must be \[M\], or \[3,M\]; got shape \[2, 2\]"):
        explainer.classes(images(), classes=[[0, 1], [1, 2]])
    with pytest.raises(ArgumentError, match="`classes` must be between 0 and 3"):
        explainer.classes(images(), classes=[0, 4])


@pytest.mark.parametrize(("method", "head"), crossed(["grad_cam", "hires_cam"], HEADS, one_in=2))
def test_many_layers_from_one_forward_pass_are_the_single_ones(method, head):
    net, x = network(head, inplace=True), images()
    explainer = EXPLAINERS[method](net, "act")
    before = state_of(net)
    count, handle = calls_of(net)
    explainer.layers(x, ["act", "features.0", net.features])  # which looks the layers up, in a pass of its own
    count[0] = 0
    found = explainer.layers(x, ["act", "features.0", net.features], contrast="weighted")
    handle.remove()
    assert count[0] == 1
    assert list(found) == ["act", "features.0", "features"]
    for name, why in found.items():
        one = EXPLAINERS[method](net, name)(x, contrast="weighted")
        torch.testing.assert_close(why.heatmap, one.heatmap)
    assert_same_state(before, state_of(net))
    with pytest.raises(ArgumentError, match="`layers` must name different layers, at least one"):
        explainer.layers(x, ["act", "act"])


@pytest.mark.filterwarnings("ignore:.*of the gradient.*flows past:contrex.errors.LayerWarning")
def test_layers_on_parallel_branches():
    """The second does not depend on the first, with which recording starts."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right = (nn.Conv2d(3, 4, 3, padding=1).double() for _ in range(2))
            self.fc = nn.Linear(8, 5).double()

        def forward(self, x):
            return self.fc(torch.cat([self.left(x).relu(), self.right(x).relu()], 1).mean((2, 3)))

    net, x = Branches().requires_grad_(False), images()
    for name, why in contrex.GradCAM(net).layers(x, ["left", "right"], target=1).items():
        torch.testing.assert_close(why.heatmap, contrex.GradCAM(net, name)(x, target=1).heatmap)


# --- scores ---------------------------------------------------------------------------------------------------------


@sampled(one_in=3)
@every_method
@pytest.mark.parametrize(
    ("score", "function"), [("probability", torch.softmax), ("log_probability", torch.log_softmax)]
)
def test_a_probability_is_explained_by_its_own_gradient(method, score, function):
    net, x = network("mlp"), images()

    class Outputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return function(self.net(x), 1)

    for contrast in (None, 2):
        found = EXPLAINERS[method](net)(x, target=1, score=score, contrast=contrast).heatmap
        expected = EXPLAINERS[method](Outputs())(x, target=1, contrast=contrast).heatmap
        torch.testing.assert_close(found, expected)
    with pytest.raises(UnknownNameError, match="`score` must be one of logit, probability, log_probability"):
        EXPLAINERS[method](net)(x, score="prob")


@pytest.mark.parametrize("head", HEADS)
def test_a_frozen_trunk_still_gives_a_differentiable_map(head):
    net, x = network(head), images()
    expected = contrex.HiResCAM(net, "act")(x, target=1, differentiable=True)
    net.features.requires_grad_(False)
    found = contrex.HiResCAM(net, "act")(x, target=1, differentiable=True)
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    found.heatmap.square().sum().backward()
    assert all(p.grad is not None for name, p in net.head.named_parameters() if name.endswith("weight"))


def test_pictures_outside_the_unit_range_are_stretched_unless_normalisation_is_named():
    from contrex.explain.figure import pictures

    x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3).expand(1, 3, 2, 3)
    assert pictures(x)[0, 0, :, 0].tolist() == [0, 0.5, 1]
    assert pictures(x / 2 + 0.5)[0, 0, :, 0].tolist() == [0, 0.5, 1]
    assert pictures(x, (0.5,), (0.25,))[0, 0, :, 0].tolist() == [0.25, 0.5, 0.75]
