"""Methods at the pixels against their equations, against captum and grad-cam, and on every road to a contrast."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError, NotDifferentiableError
from contrex.explain.input.full_grad import _ACTIVATIONS
from explain.networks import HEADS, images, network
from oracles import input_methods as oracles
from oracles.cams import CONTRASTS, assert_contrasted
from sampling import crossed, sampled

TARGET = [0, 1, 3]
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def chain(*, inplace=False, six=False):
    """A chain of layers with biases of every kind, float64, in eval mode."""
    torch.manual_seed(3)
    rectifier = (lambda: nn.ReLU6(inplace)) if six else (lambda: nn.ReLU(inplace))
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5), rectifier(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3),
        rectifier(), nn.Flatten(), nn.LazyLinear(7), rectifier(), nn.Linear(7, 4),
    )  # fmt: skip
    net = net.double().eval()
    net(images(1, (20, 28)))
    nn.init.uniform_(net[1].running_mean, -0.3, 0.3)
    nn.init.uniform_(net[1].running_var, 0.5, 1.5)
    return net


def pixels(num=3):
    return images(num, (20, 28))


def noise(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 8, 12, generator=generator).double() for _ in range(num)]


ORACLES = {
    "gradient_times_input": (contrex.GradientTimesInput, {}, oracles.gradient_times_input),
    "smooth_grad": (
        contrex.SmoothGrad,
        {"num_samples": 5, "noise": 0.2, "seed": 4},
        lambda *asked: oracles.smooth_grad(*asked, noise(5, seed=4), 0.2),
    ),
}


@sampled(one_in=2)
@pytest.mark.parametrize("head", ["mlp", "scaled"])
@pytest.mark.parametrize("method", ORACLES)
def test_linear_methods_are_their_equation_and_their_contrasts_differences_of_it(method, head):
    """Proposition 3: one map of the contrasted score is the difference of the maps of the classes."""
    kind, options, oracle = ORACLES[method]
    net, x = network(head), images()
    maps = [[oracle(net, image, k) for k in range(4)] for image in x]
    assert_contrasted(kind(net, **options), x, TARGET, maps, **CLOSE)


# --- integrated gradients -------------------------------------------------------------------------------------------


def smooth():
    """Without kinks, so that a few points of the path integrate it to many digits; float64."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 24, 7), nn.Tanh())
    return net.append(nn.Linear(7, 4)).double()


def test_integrated_gradients_is_the_integral():
    net, x = smooth(), images()
    start = torch.full((3, 8, 12), 0.3, dtype=torch.float64)
    found = contrex.IntegratedGradients(net, steps=12, baseline=0.3)(x[:1], target=2).heatmap[0]
    expected = oracles.integrated_gradients(net, x[0], 2, start)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@sampled(one_in=3)
@pytest.mark.parametrize(
    ("contrast", "baseline"),
    [
        *((contrast, torch.tensor([0.1, -0.2, 0.3])) for contrast in CONTRASTS),
        ("weighted", 0.0),
        ("weighted", lambda x: x.flip(-1)),
    ],
)
def test_integrated_gradients_is_complete(contrast, baseline):
    """The map sums to what the score gains on the way from the baseline to the image."""
    net, x, target = smooth(), images(), torch.tensor(TARGET)
    why = contrex.IntegratedGradients(net, steps=50, baseline=baseline)(x, target=target, contrast=contrast)
    rows = contrex.ops.scores.cotangent(why.logits, target, contrast)
    start = baseline if not callable(baseline) else baseline(x)
    start = start[:, None, None] if isinstance(start, torch.Tensor) and start.ndim == 1 else start
    logits = net(torch.zeros_like(x) + start)
    gained = (rows * (why.logits - logits)).sum(1).detach()
    torch.testing.assert_close(why.heatmap.sum((1, 2)), gained, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("kind", [contrex.IntegratedGradients, contrex.Occlusion])
def test_one_baseline_is_drawn_for_all_that_a_call_asks(kind, batch_size):
    """A map sums to, or is everywhere under one large window, what the score gains from the baseline that was drawn."""
    net, x, drawn = smooth(), images(), []

    def baseline(pixels):
        drawn.append(torch.rand_like(pixels))
        return drawn[-1]

    options = {"steps": 50} if kind is contrex.IntegratedGradients else {"window": (8, 12)}
    explain = kind(net, baseline=baseline, batch_size=batch_size, **options)
    first, second = explain.contrasts(x, classes=[2, 0, 3], contrasts=["mean", "weighted"])
    assert len(drawn) == 1
    gained = (net(x) - net(drawn[0])).detach()
    for why in (first, second):
        for place, k in enumerate([2, 0, 3]):
            rows = contrex.ops.scores.cotangent(why.logits, torch.full((len(x),), k), why.contrast)
            found = why.heatmap[:, place]
            found = found.sum((1, 2)) if kind is contrex.IntegratedGradients else found[:, 0, 0]
            torch.testing.assert_close(found, (rows * gained).sum(1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("score", ["probability", "log_probability"])
def test_integrated_gradients_asks_the_score_at_every_point(score):
    """Complete for the probability: its derivative is taken at each point of the path, not at the image."""
    net, x = smooth(), images()
    why = contrex.IntegratedGradients(net, steps=50)(x, score=score)
    f = {"probability": F.softmax, "log_probability": F.log_softmax}[score]
    gained = (f(why.logits, 1) - f(net(torch.zeros_like(x)), 1)).gather(1, why.target[:, None])[:, 0].detach()
    torch.testing.assert_close(why.heatmap.sum((1, 2)), gained, rtol=1e-8, atol=1e-8)


def test_a_contrast_keeps_the_weights_of_the_image_along_the_path():
    net, x, target = network("mlp"), images(), torch.tensor(TARGET)
    explainer = contrex.IntegratedGradients(net, steps=8)
    maps = explainer.classes(x, classes=range(4)).heatmap
    why = explainer(x, target=target, contrast="weighted")
    rows = contrex.ops.scores.cotangent(why.logits, target, "weighted")
    torch.testing.assert_close(why.heatmap, torch.einsum("nk,nkhw->nhw", rows, maps), **CLOSE)


@pytest.mark.parametrize("options", [{}, {"baseline": 0.2}])
def test_integrated_gradients_agrees_with_captum(options):
    captum = pytest.importorskip("captum.attr")
    net, x, target = network("mlp").float(), images().float(), torch.tensor(TARGET)
    found = contrex.IntegratedGradients(net, **options)(x, target=target).heatmap
    theirs = captum.IntegratedGradients(net).attribute(
        x.clone().requires_grad_(), baselines=options.get("baseline", 0.0), target=target, n_steps=32
    )
    torch.testing.assert_close(found, theirs.detach().sum(1).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [contrex.SmoothGrad, contrex.IntegratedGradients])
def test_memory_is_bounded_and_the_chunks_do_not_show(method):
    """No pass sees more than `batch_size` images, whatever the number of images and of copies."""
    net, x = network("mlp"), images(2)
    expected = method(net, batch_size=1000)(x, target=1).heatmap
    for size in (1, 3, 8):
        seen = []
        handle = net.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(inputs[0])))
        found = method(net, batch_size=size)(x, target=1).heatmap
        handle.remove()
        torch.testing.assert_close(found, expected, **CLOSE)
        assert max(seen[1:]) <= size


@pytest.mark.parametrize("method", [contrex.GradientTimesInput, contrex.SmoothGrad, contrex.IntegratedGradients])
def test_differentiable_maps_have_the_right_gradient(method):
    net, x = network("mlp"), images(1, (4, 6))
    net.features[1] = net.act = nn.Softplus()  # ReLUs have no second derivative to check
    weight = net.features[0].weight
    explainer = method(net, **({} if method is contrex.GradientTimesInput else {"batch_size": 3}))

    def loss():
        return explainer(x, target=1, contrast="weighted", differentiable=True).heatmap.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        direction = torch.randn_like(weight)
        weight += 1e-6 * direction
        above = loss().item()
        weight -= 2e-6 * direction
        below = loss().item()
    torch.testing.assert_close((gradient * direction).sum().item(), (above - below) / 2e-6, rtol=1e-5, atol=1e-8)


def test_seeds_reproduce_and_differ():
    net, x = network("mlp"), images()
    maps = [contrex.SmoothGrad(net, seed=seed)(x).heatmap for seed in (1, 1, 2)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


# --- guided backpropagation and deconvolution ------------------------------------------------------------------------


RULES = {"guided": (contrex.GuidedBackprop, True), "deconvnet": (contrex.Deconvnet, False)}


@sampled(one_in=2)
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_changed_relu_rules_are_their_equation_and_contrasts_differences(rule, inplace):
    kind, guided = RULES[rule]
    net, x = chain(inplace=inplace), pixels()
    maps = [[oracles.relu_chain(chain(), image, k, guided=guided).sum(0) for k in range(4)] for image in x]
    assert_contrasted(kind(net), x, TARGET, maps, **CLOSE)


@pytest.mark.parametrize("rule", RULES)
def test_changed_relu_rules_are_not_linear_in_the_score(rule):
    """Why a contrast is the difference of the maps: the map of the contrasted score is another one."""
    kind, _ = RULES[rule]

    class OneBackward(kind):
        is_linear = True

    net, x = chain(), pixels()
    one, difference = (each(net)(x, target=0, contrast=1).heatmap for each in (OneBackward, kind))
    assert not torch.allclose(one, difference, rtol=0.1)


class Functional(nn.Module):
    """The chain with functions in the place of ReLU modules."""

    def __init__(self, rectify):
        super().__init__()
        self.layers, self.rectify = chain(), rectify

    def forward(self, x):
        for layer in self.layers:
            x = self.rectify(x) if isinstance(layer, nn.ReLU) else layer(x)
        return x


@sampled(one_in=3)
@pytest.mark.parametrize("rectify", [F.relu, torch.relu, torch.Tensor.relu, lambda x: x.relu_()])
@pytest.mark.parametrize("rule", RULES)
def test_functional_relus_are_caught(rule, rectify):
    """Hooks on modules would miss them, and silently give the plain gradient."""
    kind, _ = RULES[rule]
    expected = kind(chain())(pixels(), target=1).heatmap
    net = Functional(rectify)
    torch.testing.assert_close(kind(net)(pixels(), target=1).heatmap, expected, **CLOSE)
    assert not torch.allclose(expected, contrex.Gradient(net)(pixels(), target=1).heatmap)


@pytest.mark.parametrize("rule", RULES)
def test_relu6_and_reused_relus_are_caught(rule):
    kind, _ = RULES[rule]
    net = chain(six=True)
    assert (net[:2](pixels()) < 6).all()  # where ReLU6 is a ReLU
    torch.testing.assert_close(kind(net)(pixels(), target=1).heatmap, kind(chain())(pixels(), target=1).heatmap)
    shared = chain()
    shared[5] = shared[8] = shared[2]
    torch.testing.assert_close(kind(shared)(pixels(), target=1).heatmap, kind(chain())(pixels(), target=1).heatmap)


@pytest.mark.parametrize("rule", RULES)
def test_networks_whose_relus_cannot_be_reached_are_refused(rule):
    kind, _ = RULES[rule]
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(4)).double()
    smooth(pixels(1))
    with pytest.raises(LayerError, match="no ReLU whose backward rule could be changed, or runs it"):
        kind(smooth)(pixels())

    class Checkpointed(Functional):
        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.layers, x, use_reentrant=True)

    with pytest.raises(LayerError, match="CheckpointFunctionBackward, which hides its ReLUs"):
        kind(Checkpointed(F.relu))(pixels())
    with pytest.raises(NotDifferentiableError, match="GradCAM"):
        kind(chain())(pixels(), differentiable=True)


@pytest.mark.filterwarnings("ignore:Setting .*hooks:UserWarning")
@pytest.mark.parametrize(("rule", "theirs"), [("guided", "GuidedBackprop"), ("deconvnet", "Deconvolution")])
def test_changed_relu_rules_agree_with_captum(rule, theirs):
    captum = pytest.importorskip("captum.attr")
    net, x, target = chain(), pixels(), torch.tensor(TARGET)
    expected = getattr(captum, theirs)(net).attribute(x.clone().requires_grad_(), target)
    torch.testing.assert_close(RULES[rule][0](net)(x, target=target).heatmap, expected.detach().sum(1))


@pytest.mark.filterwarnings("ignore:Setting .*hooks:UserWarning")
def test_guided_backprop_agrees_with_pytorch_grad_cam():
    pgc = pytest.importorskip("pytorch_grad_cam")
    net, x = chain().float(), pixels(1).float()
    found = contrex.GuidedBackprop(net)(x, target=2).heatmap[0]
    theirs = pgc.GuidedBackpropReLUModel(model=net, device="cpu")(x, target_category=2)
    torch.testing.assert_close(found, torch.from_numpy(theirs).sum(2), rtol=1e-5, atol=1e-5)


# --- full gradients --------------------------------------------------------------------------------------------------


def test_full_grad_is_its_equation():
    """Each layer's part has the place and the sum that it has at the layer."""
    net, x = chain(), pixels()

    def map_of(image, k):
        first, *parts = oracles.full_grad(chain(), image, k)
        return first + sum(spread(part, first.shape) for part in parts)

    maps = [[map_of(image, k) for k in range(4)] for image in x]
    assert_contrasted(contrex.FullGrad(net), x, TARGET, maps, **CLOSE)


def spread(part, size):
    """A part at the image's size: one cell at a time, resized bilinearly, with the cell's value as its sum."""
    total = torch.zeros(size, dtype=part.dtype)
    for row in range(part.shape[0]):
        for column in range(part.shape[1]):
            cell = torch.zeros_like(part)
            cell[row, column] = 1
            cell = F.interpolate(cell[None, None], size, mode="bilinear")[0, 0]
            total += part[row, column] * cell / cell.sum()
    return total


class Residual(nn.Module):
    """Branches, reuse, functions, concatenation, pooling, dropout and more cells than pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=3), nn.BatchNorm2d(6)
        self.shared, self.act = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True)
        self.up = nn.ConvTranspose2d(6, 6, 2, stride=3)
        self.last = nn.Conv2d(12, 5, 1)
        self.drop, self.fc = nn.Dropout(), nn.Linear(5, 4)
        nn.init.uniform_(self.norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(self.norm.bias, -1, 1)

    def forward(self, x):
        a = self.act(self.norm(self.stem(x)))
        a = a + F.relu(self.shared(a))
        a = self.act(self.shared(a) + a)
        a = F.avg_pool2d(self.act(self.up(a)), 3)
        a = self.last(torch.cat([a, F.leaky_relu(a - 0.0)], 1))
        return self.fc(self.drop(F.max_pool2d(a, 2).mean((2, 3))))


@pytest.mark.parametrize(
    ("build", "contrast"),
    crossed([chain, lambda: chain(six=True, inplace=True), Residual, *HEADS], CONTRASTS, one_in=3),
)
def test_full_grad_is_complete(build, contrast):
    """The map sums to the score: for ReLU networks, and with the implicit biases of element-wise activations."""
    net = (network(build) if isinstance(build, str) else build()).double().eval()
    x, target = 3 * pixels() if not isinstance(build, str) else images(), torch.tensor(TARGET)
    why = contrex.FullGrad(net)(x, target=target, contrast=contrast)
    rows = contrex.ops.scores.cotangent(why.logits, target, contrast)
    torch.testing.assert_close(why.heatmap.sum((1, 2)), (rows * why.logits).sum(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(_ACTIVATIONS))
def test_full_grad_knows_the_implicit_bias_of_activations(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(getattr(F, name)(5 * self.conv(x)).mean((2, 3)))

    torch.manual_seed(0)
    why = contrex.FullGrad(Net().double())(images())
    torch.testing.assert_close(why.heatmap.sum((1, 2)), why.logits.amax(1))


def test_full_grad_refuses_batch_norms_without_running_statistics():
    """They are no affine map of an image; those of weights would count as parts of the image."""
    net = network("mlp")
    net.features[3] = nn.BatchNorm2d(6, track_running_stats=False).double()
    with pytest.raises(LayerError, match="FullGrad needs batch norms with running statistics"):
        contrex.FullGrad(net)(images())


@pytest.mark.parametrize("training", [False, True])
def test_full_grad_differentiates(training):
    """Also through batch statistics, where the implicit bias is made of the batch."""
    net, x = network("mlp").train(training), images()
    net.features[1] = net.act = nn.Softplus()
    net.features[3].momentum = 0.0
    weight = net.features[0].weight

    def loss():
        return contrex.FullGrad(net)(x, target=1, differentiable=True).heatmap.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        direction = torch.randn_like(weight)
        weight += 1e-6 * direction
        above = loss().item()
        weight -= 2e-6 * direction
        below = loss().item()
    torch.testing.assert_close((gradient * direction).sum().item(), (above - below) / 2e-6, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("six", [False, True])
def test_full_grad_differentiates_through_changes_in_place(six):
    """An activation that overwrites its input must not overwrite what the implicit bias was made of."""
    found = []
    for inplace in (False, True):
        net = chain(inplace=inplace, six=six)
        contrex.FullGrad(net)(pixels(), target=1, differentiable=True).heatmap.square().sum().backward()
        found.append([parameter.grad for parameter in net.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)


def test_full_grad_reads_tokens_and_places_them():
    """A linear layer on a grid of tokens has its bias there; the class token's part is spread evenly."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.mix, self.fc = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            tokens = self.patch(x).flatten(2).mT
            tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
            return self.fc(F.relu(self.mix(tokens))[:, 0])

    torch.manual_seed(0)
    net = Tokens().double()
    why = contrex.FullGrad(net)(images(3, (20, 28)))
    torch.testing.assert_close(why.heatmap.sum((1, 2)), why.logits.amax(1))


@pytest.mark.parametrize("name", ["mul", "imul", "layer_norm", "softmax", "scaled_dot_product_attention", "group_norm"])
def test_full_grad_refuses_networks_that_it_cannot_divide(name):
    """A map that does not sum to the score would be no full gradient."""
    change = {
        "mul": lambda a: a * a.mean((2, 3), keepdim=True).sigmoid(),
        "imul": lambda a: a.mul_(a.mean((2, 3), keepdim=True).sigmoid()),
        "layer_norm": lambda a: F.layer_norm(a, a.shape[1:]),
        "softmax": lambda a: a.softmax(1),
        "scaled_dot_product_attention": lambda a: F.scaled_dot_product_attention(a, a, a),
        "group_norm": lambda a: F.group_norm(a, 1),
    }[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x):
            return change(self.scale * self.conv(x)).mean((2, 3))

    with pytest.raises(
        LayerError, match=f"a network with i?{name.removeprefix('i')} of activations does not allow: use"
    ):
        contrex.FullGrad(Net().double())(images())


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    crossed(
        ["smooth_grad", "gradient_times_input", "integrated_gradients", "guided_backprop", "deconvnet", "full_grad",
         "rise", "occlusion"], one_in=2,
    ),
)  # fmt: skip
def test_autocast_reaches_the_network_only(method):
    """Sums over copies, masks and layers stay in full precision: the map is near the one without autocast."""
    kind, net, x = contrex.EXPLAINERS[method], chain().float(), pixels().float()
    expected = kind(net)(x, target=1).heatmap
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kind(net)(x, target=1).heatmap
    assert found.dtype == torch.float32
    assert not torch.equal(found.bfloat16().float(), found)
    assert (found - expected).norm() < 0.4 * expected.norm()  # bfloat16 moves maxima and signs


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (contrex.SmoothGrad, {"num_samples": 0}, "`num_samples` must be at least 1 noisy copy, got 0"),
        (contrex.SmoothGrad, {"noise": -0.1}, "`noise` must be a share of the image's range, 0 or more; got -0.1"),
        (contrex.SmoothGrad, {"batch_size": 0}, "`batch_size` must be at least 1 image, got 0"),
        (contrex.IntegratedGradients, {"steps": 0}, "`steps` must be at least 1 point on the path, got 0"),
    ],
)
def test_impossible_options_are_refused(kind, options, message):
    with pytest.raises(ArgumentError, match=message):
        kind(network(), **options)


def test_a_baseline_that_does_not_fit_is_refused():
    for baseline in (torch.zeros(2), torch.zeros(3, 8, 8), lambda x: x[:, :2]):
        explainer = contrex.IntegratedGradients(network(), baseline=baseline)
        with pytest.raises(ArgumentError, match=r"`baseline` must be a number, \[C\], \[C,H,W\] or a function"):
            explainer(images())
