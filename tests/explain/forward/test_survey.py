"""The layer that is found by itself, in networks of every wiring: its map is right, or refused with a reason."""

from __future__ import annotations

import gc
import random
import warnings
import weakref
from enum import Enum

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contrex
from contrex.errors import LayerError, LayerWarning
from explain.places import assert_right
from sampling import crossed, sampled


class Net(nn.Module):
    """`run(net, images)` with the parts that it names, in eval mode; drawn anew by the same seed."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run, self.use_side = run, False
        for name, part in parts.items():
            self.add_module(name, part)
        torch.manual_seed(0)
        for module in self.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self.eval()

    def forward(self, x):
        return self.run(self, x)


def conv(width=8, num=8, size=3, stride=1):
    return nn.Conv2d(width, num, size, stride, size // 2)


def encoder():
    return nn.Sequential(conv(3, 8, 3, 2), nn.ReLU(), conv(8, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())


def gap(x):
    return x.mean((2, 3))


def network(run, **parts):
    """Two encoders, two convolutions and a classifier, of which `run` uses what it will."""
    first = {"one": encoder(), "two": encoder(), "conv": conv(), "last": nn.Sequential(conv(), nn.ReLU())}
    return Net(run, **(first | {"fc": nn.Linear(8, 4), "side": nn.Linear(3, 4)} | parts))


def images(*size, num=2, seed=0):
    return torch.randn(num, 3, *size or (32, 32), generator=torch.Generator().manual_seed(seed))


def explained(net, x, layer=None):
    explainer = contrex.GradCAM(net, layer)
    return explainer, explainer(x, target=1).heatmap


def trunk_and(side):
    return lambda net, x: net.fc(gap(net.one(x))) + side(net, x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Mirrored(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.flip(3)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(3)


def halves_swapped(x):
    found = torch.zeros_like(x)
    found[..., :16] = x[..., 16:]
    found[..., 16:] = x[..., :16]
    return found


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


class FirstPixels(nn.Module):
    def forward(self, x):
        return x[:, :, :64, :64]


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def valid_unet(net, x):
    fine = net.stem(x)
    coarse = F.interpolate(net.conv(F.max_pool2d(fine, 2)), scale_factor=2)
    return net.fc(gap(net.both(torch.cat([fine[:, :, 1:-1, 1:-1], F.pad(coarse, (-1, -1, -1, -1))], 1))))


FOUND = {
    "a sum of two encoders": (lambda n, x: n.fc(gap(n.last(n.one(x) + n.two(x)))), "last", (8, 8)),
    "one encoder sees a crop": (
        lambda n, x: n.fc(gap(n.last(n.one(x) + n.two(F.interpolate(x[..., 8:24, 8:24], scale_factor=2))))),
        "last",
        (8, 8),
    ),
    "a side branch behind a trunk": (
        lambda n, x: (lambda u: n.fc(gap(n.last(u)) + gap(n.conv(u))))(n.one(x)),
        "one",
        (8, 8),
    ),
    "heads at two scales": (
        lambda n, x: n.fc(gap(n.one(x))) + n.fc(gap(n.last(F.max_pool2d(n.one(x), 2)))),
        None,
        None,
    ),
    "a gate from the pixels before a layer": (
        lambda n, x: n.fc(gap(n.last(n.one(x) * n.gate(gap(x))[..., None, None]))),
        "last",
        (8, 8),
    ),
    "dense connections": (lambda n, x: n.fc(gap(n.last(n.one(x)) + n.conv(n.one(x)))), None, None),
    "cropped like its valid convolutions": (valid_unet, "both", (28, 28)),
    "columns first": (lambda n, x: n.fc(gap(n.one(x.transpose(2, 3)))), "one", (8, 8)),
    "colours turned round": (lambda n, x: n.fc(gap(n.one(x.flip(1)))), "one", (8, 8)),
    "shuffled after the last map in place": (lambda n, x: n.fc(gap(n.last(n.one(x).flip(3)))), "one", (8, 8)),
    "windows, never put back": (
        lambda n, x: n.fc(n.norm(n.one(x).view(len(x), 8, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).flatten(1, 4)).mean(1)),
        "norm",
        (8, 8),
    ),
    "a vector made a grid": (
        lambda n, x: n.fc(gap(n.last(gap(n.one(x))[..., None, None].expand(-1, -1, 8, 8)))),
        "one",
        (8, 8),
    ),
    "one row": (lambda n, x: n.fc(gap(n.last(n.one(x).mean(2, keepdim=True)))), "last", (1, 8)),
    "time steps": (lambda n, x: n.fc(n.lstm(n.one(x).mean(2).mT)[0].mean(1)), "one", (8, 8)),
    "a function of its own": (lambda n, x: n.fc(gap(n.last(Doubled.apply(n.one(x))))), "last", (8, 8)),
    "a function of its own that flips": (lambda n, x: n.fc(gap(n.last(Mirrored.apply(n.one(x))))), "one", (8, 8)),
    "a margin all around": (lambda n, x: n.fc(gap(n.last(F.pad(n.one(x), (4, 4, 4, 4))))), "last", (8, 8)),
}
MORE = {
    "gate": nn.Linear(3, 8),
    "norm": nn.LayerNorm(8),
    "lstm": nn.LSTM(8, 8, batch_first=True),
    "stem": nn.Conv2d(3, 8, 3),
    "both": nn.Conv2d(16, 8, 1),
}


@pytest.mark.parametrize("name", crossed(FOUND, one_in=2))
def test_the_layer_is_right(name):
    run, layer, grid = FOUND[name]
    x, net = images(), network(run, **MORE)
    if layer is None:  # a module that runs twice is ambiguous, so it may be refused
        with pytest.raises(LayerError, match=r"no layer of Net carries the logits alone|no feature map was found"):
            explained(net, x)
        return
    explainer, heatmap = explained(net, x)
    assert (explainer.layer, explainer.grid) == (layer, grid)
    assert_right(explainer, x, heatmap)


BESIDE = {
    "late fusion": lambda n, x: n.fc(gap(n.one(x))) + n.fc(gap(n.two(x))),
    "late fusion of scales": lambda n, x: n.fc(gap(n.one(x))) + n.fc(gap(n.two(F.avg_pool2d(x, 2)))),
    "the mean of the image": trunk_and(lambda n, x: n.side(gap(x))),
    "a branch that is still zero": trunk_and(lambda n, x: 0 * n.fc(gap(n.two(x)))),
    "a gate from the pixels at the end": lambda n, x: n.fc(gap(n.one(x) * n.gate(gap(x))[..., None, None])),
}
MOVED = {
    "flipped": lambda x: x.flip(3),
    "turned": lambda x: x.rot90(1, (2, 3)),
    "rolled": lambda x: x.roll(16, 3),
    "shuffled": lambda x: x[..., torch.randperm(32, generator=torch.Generator().manual_seed(0))],
    "the middle": lambda x: x[..., 8:24, 8:24],
    "the left half": lambda x: x[..., :16],
    "quarters as channels": lambda x: x[..., :16, :16] + x[..., 16:, 16:],
    "warped": lambda x: F.grid_sample(
        x, F.affine_grid(torch.tensor([[[0.0, 1, 0], [-1, 0, 0]]]).expand(len(x), 2, 3), x.shape, align_corners=False)
    ),
    "frequencies": lambda x: torch.fft.fft2(x).abs(),
    "flipped by a function of its own": Mirrored.apply,
    "halves swapped in place": halves_swapped,
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_flows_past_every_layer_is_named(name):
    with pytest.raises(LayerError, match=r"no layer of Net carries the logits alone: \d+% of the gradient flows past"):
        explained(network(BESIDE[name], **MORE), images())


@pytest.mark.filterwarnings("ignore:Default grid_sample:UserWarning")
@pytest.mark.parametrize("name", MOVED)
def test_images_that_are_moved_are_refused(name):
    net = network(lambda n, x: n.fc(gap(n.one(MOVED[name](x)))))
    with pytest.raises(
        LayerError, match=r"no feature map of Net has its cells where they are in the image.*`reshape=`"
    ):
        explained(net, images())
    with pytest.raises(LayerError, match=r"`layer` 'one' gives a map that nothing places in the image.*`reshape=`"):
        explained(net, images(), "one")
    assert contrex.GradCAM(net, "one", reshape=lambda output: output.flip(3))(images(), target=1).heatmap.any()


def test_a_crop_inside_the_network_is_read_where_it_moves_no_cell_by_more_than_half():
    """A sixteenth at each end, as of 224 in 256 pixels: of 7 cells that is less than half of one, of 14 more."""

    def run(net, x):
        return net.fc(gap(net.last(F.max_pool2d(net.one(F.interpolate(x, (64, 64))[:, :, 4:-4, 4:-4]), 2))))

    net, x = network(run), images()
    explainer, heatmap = explained(net, x)
    assert (explainer.layer, heatmap.shape[1:]) == ("last", (7, 7))
    with pytest.raises(LayerError, match=r"`layer` 'one' gives a map that nothing places .* crop the images before"):
        explained(net, x, "one")


# --- once, and again where something changed ------------------------------------------------------------------------


def test_a_size_costs_one_pass_once_and_another_none_where_the_same_functions_run():
    net = network(lambda n, x: n.fc(gap(n.last(n.one(x)))))
    counted = []
    net.one.register_forward_hook(lambda module, inputs, output: counted.append(len(output)))
    explainer = contrex.GradCAM(net)
    for size, expected in [((32, 32), [1, 2]), ((32, 32), [2]), ((48, 64), [2]), ((48, 64), [2]), ((64, 32), [2])]:
        counted.clear()
        x = images(*size)
        heatmap = explainer(x, target=1).heatmap
        assert counted == expected
        assert_right(explainer, x, heatmap)


OTHER_WAYS = {
    "a longer way": lambda n, x: n.fc(gap(n.last(n.one(x)) if x.shape[-1] > 40 else n.one(x))),
    "another encoder": lambda n, x: n.fc(gap((n.one if x.shape[-1] > 40 else n.two)(x))),
    "side by side": lambda n, x: (
        lambda u: (lambda v: n.fc(gap(n.conv(u if x.shape[-1] > 40 else v) + v)))(n.last[0](u))
    )(n.one(x)),
    "detached": lambda n, x: (lambda u: n.fc(gap(u) + gap(n.conv(u.clone() if x.shape[-1] > 40 else u.detach()))))(
        n.one(x)
    ),
    "resized": lambda n, x: n.fc(gap(n.one(F.interpolate(x, size=(32, 32))))),
}


@pytest.mark.parametrize("name", crossed(OTHER_WAYS, one_in=2))
def test_another_way_at_another_size(name):
    net = network(OTHER_WAYS[name])
    explainer = contrex.GradCAM(net)
    for size in ((32, 32), (64, 64), (32, 32), (48, 64)):
        x = images(*size)
        assert_right(explainer, x, explainer(x, target=1).heatmap)


CUT_BY_NUMBERS = {
    "a slice": lambda x: x[:, :, :64, :64],
    "a narrowing": lambda x: x.narrow(2, 0, min(64, x.shape[2])).narrow(3, 0, min(64, x.shape[3])),
    "a split": lambda x: x.split(64, 2)[0].split(64, 3)[0],
    "a list": lambda x: x[:, :, list(range(min(64, x.shape[2])))][..., :64],
    "chosen": lambda x: x.index_select(3, torch.arange(64))[:, :, :64],
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", [*CUT_BY_NUMBERS, "scripted"])
def test_what_is_cut_by_numbers_of_pixels_does_not_depend_on_the_sizes_before(name):
    """Maps of the first pixels look like those of the whole, of one cell more or less."""
    cut = CUT_BY_NUMBERS[name] if name in CUT_BY_NUMBERS else torch.jit.script(FirstPixels())
    net = network(
        lambda n, x: n.fc(gap(n.last(F.max_pool2d(n.one(n.cut(x)), 4)))),
        cut=cut if isinstance(cut, nn.Module) else Calls(cut),
    )
    used = contrex.GradCAM(net)
    for size in ((64, 64), (64, 80), (80, 80), (64, 64)):
        outcomes = []
        for explainer in (used, contrex.GradCAM(net)):
            try:
                outcomes.append(explainer(images(*size), target=1).heatmap.shape)
            except LayerError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1], size
        if name in CUT_BY_NUMBERS:  # in scripted code cells are measured, which is coarser
            assert isinstance(outcomes[0], str) == (80 in size or name in ("a list", "chosen"))


@sampled(one_in=2)
@pytest.mark.parametrize("name", ["cropped", "flipped", "a side path"])
def test_a_size_where_no_layer_is_right(name):
    def is_large(x):
        return x.shape[-1] > 40

    runs = {
        "cropped": lambda n, x: n.fc(gap(n.one(x[:, :, :32, :32]))),
        "flipped": lambda n, x: n.fc(gap(n.one(x.flip(3 if is_large(x) else 1)))),
        "a side path": lambda n, x: n.fc(gap(n.one(x))) + (n.side(gap(x)) if is_large(x) else 0),
    }
    net = network(runs[name])
    explainer = contrex.GradCAM(net)
    assert_right(explainer, images(), explainer(images(), target=1).heatmap)
    with pytest.raises(LayerError, match=r"no feature map of Net has its cells|no layer of Net carries"):
        explainer(images(64, 64), target=1)
    assert_right(explainer, images(), explainer(images(), target=1).heatmap)


def use_side(net):
    net.use_side = True


def hook(net):
    net.fc.register_forward_hook(lambda module, inputs, output: output + net.side(net.pixels))


def other_run(net):
    net.run = trunk_and(lambda n, x: n.side(gap(x)))


def other_forward(net):
    net.forward = lambda x: net.fc(gap(net.one(x))) + net.side(gap(x))


@sampled(one_in=2)
@pytest.mark.parametrize("change", [use_side, hook, other_run, other_forward])
def test_a_changed_way_is_looked_at_again(change):
    def run(net, x):
        net.pixels = gap(x)
        return net.fc(gap(net.one(x))) + (net.side(gap(x)) if net.use_side else 0)

    net = network(run)
    explainer = contrex.GradCAM(net)
    assert_right(explainer, images(), explainer(images(), target=1).heatmap)
    change(net)
    with pytest.raises(
        LayerError, match=r"no layer of Net carries the logits alone: .* of the gradient flows past 'one'"
    ):
        explainer(images(), target=1)


class Way(Enum):
    ALONE, BESIDE = 0, 1


@pytest.mark.parametrize(("before", "after"), [(0.0, 2.0), (Way.ALONE, Way.BESIDE), ((0, "a"), (1, "a"))])
def test_numbers_choices_and_tuples_may_decide_the_way_too(before, after):
    def run(net, x):
        return net.fc(gap(net.one(x))) + (net.side(gap(x)) if net.way == after else 0)

    net = network(run)
    net.way = before
    explainer = contrex.GradCAM(net)
    assert_right(explainer, images(), explainer(images(), target=1).heatmap)
    net.way = after
    with pytest.raises(LayerError, match=r"no layer of Net carries the logits alone"):
        explainer(images(), target=1)


def head(net):
    net.fc = nn.Linear(8, 6)


def longer(net):
    net.one = nn.Sequential(net.one, conv())


def wrapped(net):
    net.one[3] = nn.Sequential(net.one[3], nn.Tanh())


def shorter(net):
    net.one = net.one[:3]


@sampled(one_in=2)
@pytest.mark.parametrize("change", [head, longer, wrapped, shorter])
def test_replaced_modules_are_looked_at_again(change):
    net = network(lambda n, x: n.fc(gap(n.one(x))))
    explainer = contrex.GradCAM(net)
    explainer(images())
    change(net.eval())
    for size in ((32, 32), (48, 48)):
        x = images(*size)
        assert_right(explainer, x, explainer(x, target=1).heatmap)


def test_another_way_in_train_mode():
    net = network(lambda n, x: n.fc(gap(n.last(n.one(x)))) + (n.side(gap(x)) if n.training else 0))
    explainer = contrex.GradCAM(net)
    net.train()
    assert explainer(images(), target=1).heatmap.any()  # explained in eval mode
    assert net.training
    assert explainer.layer == "last"


def test_the_warning_says_how_much_flows_past_once():
    net = network(BESIDE["the mean of the image"])
    explainer = contrex.GradCAM(net, "one")
    with pytest.warns(
        LayerWarning, match=r"\d+% of the gradient from the logits to the pixels flows past `layer` 'one'"
    ):
        explainer(images(), target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer(images(), target=1)
        explainer(images(48, 48), target=1)
        explained(network(lambda n, x: n.fc(gap(n.last(n.one(x))))), images(), "one")  # carries all


def test_nothing_of_a_pass_is_kept():
    """Neither the graph nor an activation, of the layer that is found or named or refused."""
    kept = []

    def run(net, x):
        maps = net.one(x)
        kept.append(weakref.ref(maps))
        return net.fc(gap(net.last(maps)))

    net = network(run)
    for layer in (None, "last", "one.2"):
        explainer = contrex.GradCAM(net, layer)
        explainer(images(), target=1)
        explainer(images(48, 48), target=1)
    with pytest.raises(LayerError):
        contrex.GradCAM(net, "fc")(images())
    gc.collect()
    assert len(kept) >= 7
    assert all(one() is None for one in kept)


# --- random wirings ---------------------------------------------------------------------------------------------------


class Wiring(nn.Module):
    """A few maps, each made of earlier ones by a random step, and a head that takes one of them or several."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.rng = random.Random(seed)
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.parts = nn.ModuleList()
        self.plan = [self.step(index) for index in range(1, self.rng.randint(3, 7))]
        last = len(self.plan)
        self.taken = [last, *(one for one in range(last) if self.rng.random() < 0.15)]
        self.has_pixels = self.rng.random() < 0.1
        self.fc = nn.Linear(8 * len(self.taken) + 3 * self.has_pixels, 4)
        self.double().eval()

    def step(self, index):
        kind = self.rng.choice(sorted(STEPS))
        first, second = index - 1 if self.rng.random() < 0.7 else self.rng.randrange(index), self.rng.randrange(index)
        self.parts.append(nn.Sequential(nn.Conv2d(8, 8, self.rng.choice([1, 3]), padding="same"), nn.Tanh()))
        return kind, first, second

    def forward(self, x):
        maps = [self.stem(x)]
        for (kind, first, second), part in zip(self.plan, self.parts, strict=True):
            maps.append(STEPS[kind](part, maps[first], maps[second]))
        pooled = [gap(maps[index]) for index in self.taken] + [gap(x)] * self.has_pixels
        return self.fc(torch.cat(pooled, 1))


def like(x, other):
    return F.interpolate(x, size=other.shape[2:])


STEPS = {
    "layer": lambda part, x, y: part(x),
    "layers": lambda part, x, y: part(x),
    "residual": lambda part, x, y: x + part(x),
    "sum": lambda part, x, y: part(x) + like(y, x),
    "gate": lambda part, x, y: part(x) * gap(y).sigmoid()[..., None, None],
    "pooled": lambda part, x, y: part(F.max_pool2d(x, 2) if min(x.shape[2:]) > 4 else x),
    "flipped": lambda part, x, y: part(x.flip(3)),
    "flipped and back": lambda part, x, y: part(x.flip(3)).flip(3) + x,
    "cut": lambda part, x, y: part(x[:, :, : x.shape[2] // 2]),
    "tokens": lambda part, x, y: part(x).flatten(2).mT.mT.view(x.shape),
    "windows": lambda part, x, y: part(x.unflatten(3, (2, -1)).transpose(3, 4).flatten(3)),
    "own function": lambda part, x, y: part(Doubled.apply(x)),
}


def is_right_or_refused(seed):
    """Whether it is explained; if it is, it is right."""
    net = Wiring(seed)
    x = images(12, 16, seed=seed).double()
    explainer = contrex.GradCAM(net)
    try:
        heatmap = explainer(x, target=1).heatmap
    except LayerError:
        return False
    assert_right(explainer, x, heatmap)
    return True


def test_a_few_random_wirings():
    assert sum(map(is_right_or_refused, range(6))) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
def test_random_wirings(tenth):
    assert sum(map(is_right_or_refused, range(100 + 40 * tenth, 140 + 40 * tenth))) >= 16
