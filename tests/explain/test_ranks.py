"""Signals [N,C,L] and volumes [N,C,D,H,W] through the explainers of pictures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError
from contrex.explain import EXPLAINERS
from contrex.explain.targets import Region
from sampling import crossed

OPTIONS = {"rise": {"num_masks": 30}, "smooth_grad": {"num_samples": 3}, "integrated_gradients": {"steps": 4}}
OF_PICTURES = {name for name, kind in EXPLAINERS.items() if kind.ranks == (2,)}


def layers(rank):
    """The layers of a rank, and a kernel, padding or stride along its last axis alone."""
    convolution, norm, pooling, whole = {
        1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
        2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d),
    }[rank]
    return convolution, norm, pooling, whole, lambda last, other: (*[other] * (rank - 1), last)


def line(rank, *, is_pooled):
    """A network along one axis: of signals, or of pictures of height 1 with the very same weights."""
    convolution, norm, pooling, whole, along = layers(rank)
    torch.manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(
            convolution(3, 5, along(3, 1), padding=along(1, 0)),
            nn.ReLU(),
            pooling(along(2, 1)),
            convolution(5, 6, along(5, 1), padding=along(2, 0), stride=along(1, 1)),
            norm(6),
            nn.ReLU(),
            whole(along(1 if is_pooled else 3, 1)),
            nn.Flatten(),
            nn.Linear(6 if is_pooled else 18, 4),
        )
    return net.double().eval()


def cube(rank):
    """A network whose kernels have as many sides as the images, with global pooling."""
    convolution, norm, _, whole, _ = layers(rank)
    torch.manual_seed(4)
    net = nn.Sequential(
        convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, 4, 3, padding=1, stride=2), norm(4), nn.ReLU(),
        whole(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    return net.double().eval()


def signals(num=2, length=20):
    return torch.randn(num, 3, length, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("name", crossed([name for name in EXPLAINERS if name not in OF_PICTURES | {"rise"}], one_in=2))
def test_a_signal_is_a_picture_of_height_one(name):
    one, two = (line(rank, is_pooled=name == "cam") for rank in (1, 2))
    two.load_state_dict({key: value.view(two.state_dict()[key].shape) for key, value in one.state_dict().items()})
    x = signals()
    asked = {"target": 1, "contrast": "weighted" if name == "grad_cam" else 2}
    if not EXPLAINERS[name].is_class_specific:
        asked = {}
    explain, expected = (EXPLAINERS[name](net, **OPTIONS.get(name, {})) for net in (one, two))
    found, picture = explain(x, **asked), expected(x[:, :, None], **asked)
    torch.testing.assert_close(found.logits, picture.logits)
    torch.testing.assert_close(found.heatmap, picture.heatmap[:, 0], rtol=1e-5, atol=1e-10)
    assert found.layer == picture.layer
    assert found.grid is None or found.grid == picture.grid[1:]
    assert found.heatmap.abs().max() > 0
    if name in ("grad_cam", "layer_cam"):
        several = explain.classes(x, 3, contrast="mean")
        torch.testing.assert_close(
            several.heatmap, expected.classes(x[:, :, None], 3, contrast="mean").heatmap[:, :, 0]
        )
        assert explain.classes(x, 3).weighted().shape == (2, 3, 10)


@pytest.mark.parametrize(
    ("name", "rank"),
    crossed(["grad_cam", "hires_cam", "layer_cam", "gradient", "integrated_gradients", "occlusion"], [1, 3], one_in=2),
)
def test_maps_move_with_what_is_seen(name, rank):
    """What is far from the borders moves by two pixels, its map with it: by one cell of a layer of stride 2."""
    net, size = cube(rank), (16,) if rank == 1 else (12, 12, 14)
    x = torch.zeros(1, 2, *size, dtype=torch.float64)
    middle = (slice(None), slice(None), *[slice(4, 8)] * rank)
    x[middle] = torch.randn(x[middle].shape, dtype=torch.float64)
    options = {"occlusion": {"window": 4, "stride": 2}, "integrated_gradients": {"steps": 2}}.get(name, {})
    explain = EXPLAINERS[name](net, **options)
    for axis in range(2, 3 if name == "occlusion" else x.ndim):  # it asks often
        still, moved = (explain(image, target=1).heatmap for image in (x, x.roll(2, axis)))
        by = 1 if explain.place else 2
        inside = (slice(None), *[slice(2, 4) if explain.place else slice(4, 8)] * rank)
        torch.testing.assert_close(moved.roll(-by, axis - 1)[inside], still[inside])
        assert still[inside].abs().max() > 0


@pytest.mark.parametrize("name", crossed([name for name in EXPLAINERS if name not in OF_PICTURES], one_in=2))
def test_every_method_explains_volumes(name):
    """What it gives for a volume of depth 1 is what it gives for the picture."""
    three, two = cube(3), cube(2)
    state = {key: value for key, value in two.state_dict().items() if value.ndim != 4}
    for key in ("0.weight", "2.weight"):  # the slice in the middle; beyond the volume there are zeros
        state[key] = F.pad(two.state_dict()[key][:, :, None], (0, 0, 0, 0, 1, 1))
    three.load_state_dict(state)
    x = torch.randn(2, 2, 8, 10, dtype=torch.float64)
    asked = {"target": 1, "contrast": 0} if EXPLAINERS[name].is_class_specific else {}
    if name == "rise":
        assert EXPLAINERS[name](three, num_masks=5)(x[:, :, None], **asked).heatmap.shape == (2, 1, 8, 10)
        return
    found, expected = (
        EXPLAINERS[name](net, **OPTIONS.get(name, {}))(images, **asked)
        for net, images in ((three, x[:, :, None]), (two, x))
    )
    torch.testing.assert_close(found.heatmap[:, 0], expected.heatmap, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("pooling", [nn.MaxPool3d(2), nn.AvgPool3d(2)], ids=["max", "mean"])
def test_relevance_stays_on_its_way_through_a_volume(pooling):
    torch.manual_seed(6)
    first, last = nn.Conv3d(2, 4, 3, padding=1, bias=False), nn.Conv3d(4, 5, 3, bias=False)
    end = (nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, 3, bias=False))
    net = nn.Sequential(first, nn.ReLU(), pooling, last, *end).double().eval()
    x = torch.randn(2, 2, 6, 8, 10, dtype=torch.float64)
    found = contrex.LRP(net, rules="epsilon")(x, target=1)
    torch.testing.assert_close(found.heatmap.sum((1, 2, 3)), found.logits[:, 1], rtol=1e-3, atol=1e-6)
    excited = contrex.ExcitationBackprop(net)(x, target=1).heatmap
    torch.testing.assert_close(excited.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))
    assert excited.min() >= 0


def test_rise_of_signals_is_its_formula():
    """Masks are one row of cells, enlarged linearly and cut out: a mean of them, weighted by the score they leave."""
    net, x = line(1, is_pooled=True), signals()
    found = contrex.RISE(net, num_masks=40, cells=4, seed=1)(x, target=2).heatmap
    generator = torch.Generator().manual_seed(1)
    grids = (torch.rand(40, 4, generator=generator) < 0.5).float()
    starts = torch.randint(5, (40,), generator=generator).tolist()
    large = F.interpolate(grids[:, None], 25, mode="linear", align_corners=False)[:, 0].double()
    masks = torch.stack([mask[start : start + 20] for mask, start in zip(large, starts, strict=True)])
    expected = sum(net(x * mask)[:, 2, None] * mask for mask in masks).detach() / (40 * 0.5)
    torch.testing.assert_close(found, expected)


def test_a_map_of_a_volume_is_its_formula():
    """Grad-CAM and HiResCAM by hand, enlarged trilinearly; in training too."""
    net, x = cube(3), torch.randn(2, 2, 6, 8, 10, dtype=torch.float64)
    activation = net[:5](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net[5:](activation)[:, 2].sum(), activation)
    why = contrex.GradCAM(net)(x, target=2)
    expected = torch.einsum("nc,ncdhw->ndhw", gradient.mean((2, 3, 4)), activation).detach()
    torch.testing.assert_close(why.heatmap, expected)
    torch.testing.assert_close(contrex.HiResCAM(net)(x, target=2).heatmap, (gradient * activation).sum(1).detach())
    assert (why.place, why.grid) == ("4, 3 x 4 x 5", (3, 4, 5))
    large = F.interpolate(expected[:, None], (6, 8, 10), mode="trilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(why.resize((6, 8, 10)).heatmap, large)
    torch.testing.assert_close(why.slice(4.5 / 6).resize((8, 10)).heatmap, large[:, 4])
    assert why.slice().grid == (4, 5)
    trained = contrex.GradCAM(net)(x, target=2, differentiable=True)
    trained.heatmap.square().sum().backward()
    assert net[0].weight.grad.abs().max() > 0
    at = contrex.GradCAM(net).layers(x, ["1", "4"], target=2)
    assert at["1"].heatmap.shape == (2, 6, 8, 10)
    torch.testing.assert_close(at["4"].heatmap, expected)


def test_regions_of_signals():
    """Segmentation of a signal: why is this stretch of it class 1?"""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 5, 3, padding=1), nn.Tanh(), nn.Conv1d(5, 4, 1)).double().eval()
    x, mask = signals(), torch.arange(20) // 5 == 1
    why = contrex.Gradient(net)(x, score=Region(mask, 1), contrast=2)
    pixels = x.clone().requires_grad_()
    means = net(pixels)[:, :, mask].mean(2)
    (expected,) = torch.autograd.grad((means[:, 1] - means[:, 2]).sum(), pixels)
    torch.testing.assert_close(why.heatmap, expected.sum(1))
    with pytest.raises(
        ArgumentError, match=r"`Region` where must be a mask \[20\] in the size of the images, or one p"
    ):
        contrex.Gradient(net)(x, score=Region((3, 7), 1))


class Transformer(nn.Module):
    """Patches of a signal behind a class token, as audio and ECG transformers have them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.token = nn.Conv1d(3, 8, 4, stride=4), nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 4)
        self.double().eval()

    def forward(self, x):
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).mT], 1)
        return self.fc(self.norm(self.block(tokens)).mean(1))


def test_tokens_of_a_signal_are_its_cells():
    """The layer is found as in pictures, and a `reshape` of one's own gives maps [N,C,l]."""
    net, x = Transformer(), signals()
    why = contrex.GradCAM(net)(x, target=1)
    named = contrex.GradCAM(net, why.layer, reshape=lambda tokens: tokens[:, 1:].mT)(x, target=1)
    assert why.grid == named.grid == (5,)
    torch.testing.assert_close(why.heatmap, named.heatmap)
    with pytest.raises(LayerError, match=r"`reshape` must give \[2,C,l\] for such images, it gave \[2, 8, 1, 5\]"):
        contrex.GradCAM(net, why.layer, reshape=lambda tokens: tokens[:, 1:].mT[:, :, None])(x, target=1)


def test_figures(tmp_path):
    why = contrex.GradCAM(line(1, is_pooled=True))(signals(), target=2)
    figure = why.show(signals(), captions=["one", "two"])
    drawn = [axis for axis in figure.axes if axis.lines]
    assert [axis.get_ylabel() for axis in drawn] == ["one", "two"]
    assert "why class 2?" in drawn[0].get_title()
    torch.testing.assert_close(torch.tensor(drawn[1].lines[2].get_ydata()), signals()[1, 2].float())
    colours = torch.tensor(drawn[0].images[0].get_array())[0].int()  # red where it speaks for the class, blue against
    assert torch.equal((colours[:, 0] - colours[:, 2]).sign(), why.resize(20).heatmap[0].sign().int())
    why.save(tmp_path / "why.npz")
    assert why._repr_png_() is None
    for draw in (why.overlay, lambda: why.on(signals()), lambda: why.save(tmp_path / "why.png")):
        with pytest.raises(ArgumentError, match=r"`heatmap` \[N,L\] is of signals, no pictures: draw it .* why.show"):
            draw()
    with pytest.raises(ArgumentError, match=r"`images` must be \[2,C,L\], one per map; got NoneType"):
        why.show()
    volumes = torch.randn(1, 3, 8, 10, 12)
    deep = contrex.Gradient(nn.Sequential(nn.Conv3d(3, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten()))(volumes)
    with pytest.raises(ArgumentError, match=r"is of volumes: draw a slice, why.slice\(0.5\).show\(images\[:, :, "):
        deep.show(volumes)
    assert deep.slice(0.5).show(volumes[:, :, 4]).axes[1].images[0].get_array().shape[:2] == (10, 12)
    for wrong in (lambda: deep.slice(2), why.slice):
        with pytest.raises(ArgumentError, match=r"`slice` takes maps of volumes \[N,D,H,W\], and a place in 0..1; got"):
            wrong()


REFUSED = {
    "one signal": (lambda: contrex.GradCAM(line(1, is_pooled=True)), (3, 20), r"a batch \[N,C,L\] with N >= 1, got"),
    "one picture": (lambda: contrex.GradCAM(cube(2)), (2, 8, 8), r"a batch \[N,C,H,W\] with N >= 1, got \[2, 8"),
    "frames": (lambda: contrex.GradCAM(cube(2)), (2, 2, 2, 8, 8), r"a batch \[N,C,H,W\] with N >= 1, got \[2, 2, 2"),
    "volumes": (lambda: contrex.GradCAM(cube(3)), (2, 2, 8), r"a batch \[N,C,D,H,W\] with N >= 1, got \[2, 2"),
    "attention": (
        lambda: contrex.AttentionRollout(Transformer()), (2, 3, 20), r"AttentionRollout explains pictures \[N,C,H"
    ),
    "window": (
        lambda: contrex.Occlusion(line(1, is_pooled=True), window=(3, 3)),
        (2, 3, 20),
        "`window` must be at least 1 pixel, or one for each side, 1; got",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_explained(make, shape, message):
    with pytest.raises(ArgumentError, match=message):
        make()(torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="`size` must be one number, or one for each of the 1 sides of a map"):
        contrex.Gradient(line(1, is_pooled=True))(signals(1)).resize((4, 4))


@pytest.mark.parametrize("option", [{"augment": "flip"}, {"fuse": "mean(0, 2)"}], ids=str)
def test_what_pictures_alone_can_be_told(option):
    (name,) = option
    with pytest.raises(ArgumentError, match=rf"`{name}` '.*' is for pictures \[N,C,H,W\], got `images` \[2, 3, 20\]"):
        contrex.GradCAM(line(1, is_pooled=True), **option)(signals())
