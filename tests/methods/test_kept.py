"""The trunk that network and teacher share, and what is kept of it: the same losses, for less."""

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

from contrex.explain.forward.trunk import going_on, trunk_end, trunk_output
from contrex.methods.kept import one_by_one
from contrex.models import build_network
from explain.networks import SwitchedOff
from methods.test_retrofit import BASE, moved, plan_of
from methods.test_steps import make_batch, make_classifier
from sampling import crossed, sampled

HALF = replace(BASE, trained=("features.1", "features.2", "fc"))


def begun(keep_gib, **options):
    """A step whose network has moved on from its teacher in the trained part, as in a run."""
    classifier = make_classifier()
    (phase,) = plan_of(replace(HALF, keep_gib=keep_gib, **options), classifier).phases
    phase.begin(0)
    kept = {name: value.clone() for name, value in classifier.network.features[0].state_dict().items()}
    moved(classifier).features[0].load_state_dict(kept)
    return phase.step


def whole(step):
    """The step without a trunk of its own."""
    step.trunk.of = lambda images, seen: None
    return step


@pytest.mark.parametrize(
    ("options", "keep_gib"),
    crossed(
        [{}, {"teacher_decay": 0.5}, {"contrast": "weighted", "negatives": False, "views_share": 0.5}],
        [0.0, 6e-6, 1.0],
        one_in=2,
    ),
    ids=str,
)
def test_losses_and_gradients_are_those_without(keep_gib, options):
    plain, step = whole(begun(keep_gib, **options)), begun(keep_gib, **options)
    batch = replace(make_batch(6), indices=torch.tensor([5, 0, 3, 1, 4, 2]))
    for _ in range(2):  # the second time some are kept
        outputs = [one(batch) for one in (plain, step)]
        for output in outputs:
            output.loss.backward()
        assert outputs[0].logs.keys() == outputs[1].logs.keys()
        torch.testing.assert_close(outputs[1].logs, outputs[0].logs, rtol=1e-10, atol=1e-12)
    for own, other in zip(step.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-11)
    assert step.trunk.end == "features.0"
    row = step.trunk._computed(step.normalise(batch.images[:1])).num_bytes
    assert step.trunk.num_bytes == row * min(6, int(keep_gib * 2**30 // row))
    assert keep_gib != 6e-6 or 0 < step.trunk.num_bytes < 6 * row


def test_what_is_kept_is_not_computed_again_and_is_each_images_own():
    step, batch = begun(1.0), replace(make_batch(4), indices=torch.arange(4))
    step(batch)
    seen = []
    step.network.features[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    step.teacher.network.features[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    step(batch)  # hooks of others make it another network, which is looked into again
    seen.clear()
    step(batch)
    assert sorted(seen) == [1, 1, 4], "the views, and one image in the pass of each network"
    order = torch.tensor([2, 0, 3, 1])
    shuffled = replace(batch, images=batch.images[order], indices=order)
    places = [(place, -1) for place in order.tolist()]
    features = step.trunk.of(
        step.normalise(torch.cat([shuffled.images, batch.images])), [*places, *[None] * 4]
    ).features
    torch.testing.assert_close(features[:4], features[4:][order])
    del step.trunk._rows[0, -1]  # as after a resume, with other images beside it
    images = step.normalise(batch.images[:2].repeat_interleave(2, 0))
    again = step.trunk.of(images, [(0, -1), (9, -1), None, None]).features
    assert torch.equal(again[0], features[1])


@pytest.fixture
def two_threads():
    num = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(num)


@pytest.mark.usefixtures("two_threads")
def test_what_is_kept_is_the_same_to_the_bit_whichever_thread_computes_it():
    step, batch = begun(1.0), make_batch(8)
    images, places = step.normalise(batch.images), [(place, -1) for place in range(8)]
    together = step.trunk.of(images, places)
    torch.set_num_threads(1)
    alone = [begun(1.0).trunk.of(images[n : n + 1], places[n : n + 1]) for n in range(8)]
    assert torch.equal(together.features, torch.cat([one.features for one in alone]))
    assert torch.equal(together.logits, torch.cat([one.logits for one in alone]))


@pytest.mark.usefixtures("two_threads")
def test_each_thread_has_an_image_of_its_own_and_one_thread_for_it():
    both = threading.Barrier(2, timeout=60)

    def work(image):
        both.wait()
        return image.sum().item(), torch.get_num_threads(), threading.get_ident()

    found = one_by_one(work, torch.arange(4.0)[:, None])
    assert [total for total, _, _ in found] == [0, 1, 2, 3]
    assert {num for _, num, _ in found} == {1}
    assert len({owner for _, _, owner in found}) == 2
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError):
        one_by_one(lambda image: 1 / 0, torch.zeros(2, 1))
    assert torch.get_num_threads() == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert one_by_one(lambda image: torch.is_autocast_enabled("cpu"), torch.zeros(2, 1)) == [True, True]
    assert one_by_one(work, torch.zeros(0, 1)) == []


@pytest.mark.parametrize("keep_gib", [6e-6, 1.0])
def test_views_that_come_again_are_kept_too(keep_gib):
    plain, step = whole(begun(keep_gib)), begun(keep_gib)
    step.trunk.num_views = 2
    batches = [make_batch(6, seed=seed) for seed in range(3)]
    places = torch.tensor([5, 0, 3, 1, 4, 2])
    images = batches[0].images
    for draw in (0, 1, 0, 1, 2):  # the last is no view that comes again
        view = replace(batches[draw].views[0], draws=torch.full((6,), draw))
        batch = replace(batches[0], images=images, indices=places, views=(view,))
        expected, found = plain(batch), step(batch)
        torch.testing.assert_close(found.logs, expected.logs, rtol=1e-10, atol=1e-12)
    keys = set(step.trunk._rows)
    row = step.trunk.image_bytes // 3
    num = min(6, int(keep_gib * 2**30 // (3 * row)))
    assert keys == {(place, view) for place in range(num) for view in (-1, 0, 1)}
    assert step.trunk.num_bytes == num * step.trunk.image_bytes
    assert keep_gib == 1.0 or 0 < num < 6
    seen = []
    step.network.features[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    batch = replace(batches[0], indices=places, views=(replace(batches[1].views[0], draws=torch.full((6,), 1)),))
    step(batch)  # hooks of others make it another network, which is looked into again
    seen.clear()
    step(batch)
    assert sum(seen) == 2 * (6 - num) + 1, "those for which there is no room, and one in the pass of the network"


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "train"},
        {"trained": ("all",)},
        {"explainer": "gradient_times_input"},
        {"explainer": "hires_cam(augment='flip')"},
        {"explainer": "hires_cam(fuse='mean(features.1, features)')"},
    ],
)
def test_without_a_trunk_nothing_is_shared(options):
    step = begun(1.0, **options)
    step(replace(make_batch(4), indices=torch.arange(4)))
    assert step.trunk.end is None
    assert step.trunk.num_bytes == 0


def test_what_is_trained_now_decides():
    """A step in a loop of one's own, whose first layers learn too, keeps nothing that would grow stale."""
    step, batch = begun(1.0), replace(make_batch(4), indices=torch.arange(4))
    step(batch)
    step.network.requires_grad_(True)
    step(batch).loss.backward()
    assert step.trunk.end is None
    assert step.trunk.num_bytes == 0
    assert step.network.features[0][0].weight.grad.abs().sum() > 0


# --- where the trunk ends --------------------------------------------------------------------------------------------


class Beside(nn.Module):
    """Its logits have a way of their own past the block, which a trunk must not miss."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, images):
        stem = self.stem(images)
        return self.fc((self.last(self.block(stem)) + stem).relu().mean((2, 3)))


@sampled(one_in=2)
@pytest.mark.parametrize(
    ("name", "options", "first", "layer", "end"),
    [
        pytest.param("timm:mobilenetv2_100", {}, "blocks.5.0", "bn2", "blocks.4", marks=pytest.mark.slow),
        ("torchvision:resnet18", {}, "layer4", "layer4", "layer3"),
        pytest.param("torchvision:resnet18", {}, "fc", "layer4", "layer4", marks=pytest.mark.slow),
        ("torchvision:squeezenet1_1", {}, "features.9", "features.12", "features.8"),
        ("timm:vit_tiny_patch16_224", {"depth": "4", "img_size": "64"}, "blocks.3", "blocks.3.norm1", "blocks.2"),
        ("timm:vit_tiny_patch16_224", {"depth": "4", "img_size": "64"}, "", "blocks.3.norm1", None),
    ],
)
def test_the_end_of_the_trunk(name, options, first, layer, end):
    torch.manual_seed(0)
    network = build_network(name, options, num_classes=5).eval()
    trained = list(network.get_submodule(first).parameters())
    images = torch.randn(3, 3, 64, 64)
    assert trunk_end(network, images, trained, network.get_submodule(layer)) == end
    if end is not None:
        features = trunk_output(network, images, end)
        with torch.no_grad(), going_on(network, end, features):
            found = network(images)
        torch.testing.assert_close(found, network(images).detach(), rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("how", SwitchedOff.HOW)
def test_a_trunk_that_wants_all_images_is_seen_beside_a_class_that_is_switched_off(how):
    class Centred(Beside):
        def forward(self, images):
            return super().forward(images) - images.mean()

    torch.manual_seed(0)
    images = torch.randn(3, 3, 8, 8)
    for kind, end in ((Beside, "net.stem"), (Centred, None)):
        network = SwitchedOff(kind(), how)
        assert trunk_end(network, images, list(network.net.last.parameters()), network.net.last) == end


def test_what_flows_past_a_layer_is_no_trunk_alone():
    torch.manual_seed(0)
    network = Beside()
    images, trained = torch.randn(3, 3, 8, 8), list(network.last.parameters())
    assert trunk_end(network, images, trained, network.last) == "stem"
    with torch.no_grad():  # also where nothing flows there yet
        network.block.weight.zero_()
    assert trunk_end(network, images, trained, network.last) == "stem"
