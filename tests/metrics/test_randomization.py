from __future__ import annotations

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics.randomization import (
    RandomizationSimilarity,
    below_chance,
    changes,
    randomized,
)
from contrex.metrics.similarity import KINDS, chance_similarity, map_similarity
from oracles import randomization as slow
from sampling import sampled

SLOW = {
    "spearman": slow.spearman,
    "spearman_abs": lambda a, b: slow.spearman(a.abs(), b.abs()),
    "ssim": slow.ssim,
}


class Net(nn.Module):
    """Nested layers, batch norm with statistics, and parameters of the network itself."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(4))
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.MultiheadAttention(4, 2))
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            for tensor in [*self.parameters(), self.stem[1].running_mean, self.stem[1].running_var]:
                tensor.add_(torch.rand_like(tensor))

    def forward(self, x):
        return self.head(self.block[0](self.stem(x)).mean(dim=(2, 3)) + self.token)


LAYERS = ["head", "block.1.out_proj", "block.1", "block.0", "stem.1", "stem.0", ""]


@pytest.fixture
def network():
    return Net()


# --- randomising ----------------------------------------------------------------------------------------------------


def test_cascade_from_the_top(network):
    """After each layer its parameters differ and nothing below it does."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    owner = {name: name.rpartition(".")[0] for name in before}
    reached = []
    for name, changed in randomized(network):
        reached.append(name)
        for key, value in changed.state_dict().items():
            if owner[key] not in reached:
                assert value.equal(before[key]), (name, key)
            elif value.is_floating_point():
                assert not value.equal(before[key]), (name, key)
    assert reached == LAYERS
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_one_copy_and_no_trace(network):
    network.train()
    network.stem[1].eval()
    state = torch.get_rng_state()
    copies = {id(changed) for _, changed in randomized(network)}
    assert len(copies) == 1
    assert id(network) not in copies
    assert torch.get_rng_state().equal(state)
    assert network.training
    for _, changed in randomized(network):
        assert [module.training for module in changed.modules()] == [module.training for module in network.modules()]
        assert all(parameter.requires_grad for parameter in changed.parameters())


def last(network, **options):
    *_, (_, changed) = randomized(network, **options)
    return {name: value.clone() for name, value in changed.state_dict().items()}


def test_seed(network):
    first, second, other = last(network), last(network), last(network, seed=1)
    assert all(value.equal(second[name]) for name, value in first.items())
    assert not first["head.weight"].equal(other["head.weight"])
    twin = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    weights = last(twin)
    assert not weights["0.weight"].equal(weights["1.weight"])


def test_what_is_drawn_does_not_depend_on_what_was_there(network):
    """Layers that can reset themselves forget their values; the stages do not matter either."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    first, second = last(network, stages=["block"]), last(other)
    for name in ("head.weight", "block.0.weight", "stem.0.bias", "stem.1.running_var", "stem.1.weight"):
        assert first[name].equal(second[name])
    assert first["stem.1.running_var"].equal(torch.ones(4))


def test_layers_without_a_reset_keep_their_mean_and_size():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(3 + 0.5 * torch.randn(20_000))

    scale = Scale()
    gamma = last(scale)["gamma"]
    assert gamma.mean().item() == pytest.approx(3, abs=0.02)
    assert gamma.std().item() == pytest.approx(0.5, rel=0.02)
    assert abs(torch.corrcoef(torch.stack([gamma, scale.gamma.detach()]))[0, 1]) < 0.05


def test_stages(network):
    whole = last(network)
    names = []
    for name, changed in randomized(network, stages=["stem", "head", "block"]):
        names.append(name)
        state = changed.state_dict()
        for stage in ("head", "block", "stem"):
            done = stage in names
            assert all(value.equal(whole[key]) == done for key, value in state.items() if key == f"{stage}.0.weight")
    assert names == ["head", "block", "stem", ""]
    assert [name for name, _ in randomized(network, stages=())] == [""]
    plain = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1))
    assert [name for name, _ in randomized(plain, stages=["0"])] == ["0"]


def test_randomized_errors(network):
    with pytest.raises(
        UnknownNameError, match=r"a stage of `stages` must be one of .* got 'blok'. Did you mean 'block'"
    ):
        next(randomized(network, stages=["blok"]))
    with pytest.raises(ArgumentError, match=r"`network` must have parameters to randomise, ReLU has none"):
        next(randomized(nn.ReLU()))


# --- comparing ------------------------------------------------------------------------------------------------------


@sampled(one_in=3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", [False, True])
def test_oracle(kind, ties):
    maps, others = torch.randn(3, 11, 12), torch.randn(3, 11, 12)
    others[1] += maps[1]
    if ties:
        maps, others = (2 * maps).round(), others.clamp(-1, 0.5)
    expected = [SLOW[kind](a, b) for a, b in zip(maps, others, strict=True)]
    similarities = map_similarity(maps, others, kind)
    assert similarities.dtype == torch.float64
    torch.testing.assert_close(similarities, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


def test_spearman_is_scipy_s():
    maps, others = torch.randn(4, 9, 8).relu(), torch.randint(-2, 3, (4, 9, 8)).float()
    others[0] += maps[0]
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps, others, strict=True)]
    torch.testing.assert_close(map_similarity(maps, others), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_and_opposite_maps(kind):
    maps = torch.randn(3, 12, 12)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(map_similarity(maps, maps, kind), ones)
    torch.testing.assert_close(map_similarity(maps, 5 * maps, kind), ones)
    low, high = {"spearman": (-1.01, -0.99), "spearman_abs": (0.99, 1.01), "ssim": (-1.0, -0.7)}[kind]
    opposite = map_similarity(maps, -maps, kind)
    assert ((low <= opposite) & (opposite <= high)).all()


def test_only_ranks_matter_and_the_order_of_the_batch_does_not():
    maps, others = torch.randn(4, 5, 6, dtype=torch.float64), torch.randn(4, 5, 6, dtype=torch.float64)
    similarities = map_similarity(maps, others)
    torch.testing.assert_close(map_similarity(maps.exp(), others**3), similarities)
    torch.testing.assert_close(map_similarity(others, maps), similarities)
    torch.testing.assert_close(map_similarity(maps.flip(0), others.flip(0)), similarities.flip(0))


@pytest.mark.parametrize("kind", KINDS)
def test_maps_without_a_similarity_are_nan(kind):
    maps, others = torch.randn(4, 12, 12), torch.randn(4, 12, 12)
    maps[0], others[1] = 0, 0
    if kind == "spearman_abs":
        maps[2] = maps[2].sign()
    else:
        maps[2] = 7
    expected = [True, True, kind != "ssim", False]
    assert map_similarity(maps, others, kind).isnan().tolist() == expected


@pytest.mark.parametrize(
    ("changes_", "message"),
    [
        ({"kind": "spearmann"}, r"`kind` must be one of spearman, spearman_abs, ssim; got 'spearmann'"),
        ({"others": torch.ones(2, 12, 11)}, r"must have one shape \[N,H,W\] with N >= 1, got \[2, 12, 12\]"),
        ({"heatmaps": torch.ones(12, 12)}, r"`heatmaps` and `others` must have one shape"),
        (
            {"heatmaps": torch.full((2, 12, 12), torch.nan)},
            r"`heatmaps` must be finite, got NaN or infinity at index 0",
        ),
        ({"others": torch.full((2, 12, 12), -torch.inf)}, r"`others` must be finite"),
        (
            {"heatmaps": torch.ones(2, 7, 12), "others": torch.ones(2, 7, 12), "kind": "ssim"},
            r"`heatmaps` must be at least 11x11 for 'ssim', got \[7, 12\]: resize them first",
        ),
    ],
)
def test_similarity_errors(changes_, message):
    arguments = {"heatmaps": torch.ones(2, 12, 12), "others": torch.ones(2, 12, 12), **changes_}
    with pytest.raises(ArgumentError, match=message):
        map_similarity(**arguments)


# --- the verdict ----------------------------------------------------------------------------------------------------


def test_chance_compares_neighbours():
    maps = torch.randn(4, 6, 6)
    expected = torch.cat([map_similarity(maps[:-1], maps[1:]), map_similarity(maps[-1:], maps[:1])])
    torch.testing.assert_close(chance_similarity(maps), expected)
    with pytest.raises(ArgumentError, match=r"`heatmaps` must be of at least 2 images, got 1"):
        chance_similarity(maps[:1])


@pytest.mark.parametrize(
    ("similarity", "chance", "expected"),
    [
        (0.49, None, True),
        (0.5, None, False),
        (0.49, -0.3, True),
        (0.5, -0.3, False),
        (0.74, 0.5, True),
        (0.75, 0.5, False),
        (1.0, 1.0, False),
        (0.9, 1.0, True),
        (-1.0, 0.0, True),
    ],
)
def test_changes(similarity, chance, expected):
    similarities = torch.tensor([similarity, similarity, torch.nan], dtype=torch.float64)
    level = None if chance is None else torch.tensor([chance], dtype=torch.float64)
    assert changes(similarities, level) is expected


def test_changes_takes_the_mean_over_images():
    assert changes(torch.tensor([1.0, 0.5, -0.6]))
    assert not changes(torch.tensor([1.0, 1.0, -0.4]))


def test_changes_errors():
    with pytest.raises(ArgumentError, match=r"`similarities` must hold at least one value that is not NaN"):
        changes(torch.tensor([torch.nan]))
    with pytest.raises(ArgumentError, match=r"`similarities` must lie in -1..1, got 2 at index 1"):
        changes(torch.tensor([0.0, 2.0]))
    with pytest.raises(ArgumentError, match=r"`chance` must be \[N\], one per image, got \[\]"):
        changes(torch.tensor([0.0]), torch.tensor(0.0))


def test_an_edge_detector_is_flagged_and_a_gradient_is_not():
    """The paper's point, on a small network: an image's edges do not change with its parameters."""
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 144, 4),
    )  # fmt: skip
    images = torch.randn(8, 1, 12, 12)

    def edges(_):
        return (images - images.roll(1, dims=3))[:, 0]

    def gradient(model):
        pixels = images.clone().requires_grad_()
        return torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)[0][:, 0]

    *_, (_, changed) = randomized(network, stages=(), seed=5)
    for explain, expected in ((edges, False), (gradient, True)):
        before = explain(network)
        assert changes(map_similarity(before, explain(changed)), chance_similarity(before)) is expected


# --- the metric -----------------------------------------------------------------------------------------------------


def test_metric():
    metric = RandomizationSimilarity("ssim", stage="layer4.1")
    assert (metric.name, metric.higher_is_better) == ("randomization_ssim_layer4_1", False)
    assert metric.title == "Similarity after randomising layer4.1 (SSIM)"
    assert RandomizationSimilarity().name == "randomization_spearman"
    metric.update(torch.tensor([0.5, torch.nan]))
    metric.update(torch.tensor([-0.25]))
    assert metric.compute().item() == 0.125
    assert metric.record(num_bootstrap=10, seed=0).num_skipped == 1


def test_metric_errors():
    with pytest.raises(UnknownNameError, match=r"`kind` must be one of spearman, spearman_abs, ssim; got 'hog'"):
        RandomizationSimilarity("hog")
    metric = RandomizationSimilarity()
    with pytest.raises(ArgumentError, match=r"`similarities` must lie in -1..1, got -1.5 at index 0"):
        metric.update(torch.tensor([-1.5]))
    with pytest.raises(ArgumentError, match=r"`similarities` must be \[N\], one per image, got \[1, 1\]"):
        metric.update(torch.zeros(1, 1))
    assert not len(metric.values())


def test_torchmetrics_has_the_same_structural_similarity():
    image = pytest.importorskip("torchmetrics.functional.image")
    first, second = (torch.randn(3, 17, 14, dtype=torch.float64) for _ in range(2))
    scaled = [(1 + maps / maps.abs().amax((1, 2), keepdim=True))[:, None] / 2 for maps in (first, second)]
    theirs = image.structural_similarity_index_measure(*scaled, data_range=1.0, reduction="none")
    torch.testing.assert_close(map_similarity(first, second, "ssim"), theirs, rtol=1e-13, atol=1e-13)


def test_each_stage_alone_leaves_the_others_trained():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    network[1].running_mean.normal_()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = []
    for name, changed in randomized(network, seed=1, order="independent"):
        now = changed.state_dict()
        differ = {key.partition(".")[0] for key, value in before.items() if not torch.equal(value, now[key])}
        found.append((name, differ))
    assert found == [("3", {"3"}), ("1", {"1"}), ("0", {"0"})]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UnknownNameError, match="`order` must be one of cascading, independent"):
        next(randomized(network, order="alone"))


def test_the_line_of_the_medical_paper_is_the_chance_level():
    some = torch.tensor([0.5, torch.nan, 0.7])
    assert below_chance(some, torch.tensor([0.7, 0.6]))
    assert not below_chance(some, torch.tensor([0.5, 0.5]))
