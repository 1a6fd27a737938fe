"""Second views of what a layer gives: the losses by hand, what runs how often, and where it is refused."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from contrex.data import image_set
from contrex.data.views.batch import Batch, View
from contrex.data.views.training import TrainingViews
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain import HiResCAM
from contrex.methods import training_step
from contrex.methods.cgc import CGCStep
from contrex.methods.layer_views import transformed_features
from contrex.models import Classifier
from contrex.models.convnet import ConvNet
from contrex.ops.geometry import Crop
from contrex.settings import CGC, Augmentation, CGCNoNegatives, Digits, Model, Recipe, Retrofit
from methods.test_retrofit import boxes_of, moved, plan_of
from methods.test_steps import make_batch, make_classifier
from methods.test_unlabelled import two_batches
from oracles import consistency
from oracles import retrofit as oracle
from sampling import crossed

MEAN_AND_STD = ((0.5,) * 3, (0.25,) * 3)


def with_crops_alone(batch):
    """The batch as the data give it where no pixels of views are made."""
    views = tuple(View(None, view.crop, is_seen=False) for view in batch.views)
    return replace(batch, views=views, unlabelled=batch.unlabelled and with_crops_alone(batch.unlabelled))


def by_hand(network, batch, num):
    """Logits `[N+n,K]` and maps of the N plain images and of n views of the first layer's output, by loops."""
    given = network.features[0](batch.images * 4 - 2)
    views = []
    for one, (top, left, height, width, flip) in zip(given, boxes_of(batch)[:num], strict=False):
        scale = 16 / one.shape[-1]  # of a cell, in pixels
        ys, xs = ((torch.arange(one.shape[-1], dtype=one.dtype) + 0.5) / one.shape[-1] for _ in range(2))
        xs = 1 - xs if flip else xs
        # from a place in the view to one in the image, never nearer to the edge of the crop than half a cell
        rows, columns = ys * height / scale, xs * width / scale
        rows = rows.clamp(0.5, max(height / scale - 0.5, 0.5)) + top / scale
        columns = columns.clamp(0.5, max(width / scale - 0.5, 0.5)) + left / scale
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None] * 2 / one.shape[-1] - 1
        views.append(F.grid_sample(one[None], grid, align_corners=False, padding_mode="border"))
    activation = network.features[1:](torch.cat([given, *views]))
    logits = network.fc(activation.mean((2, 3)))
    target = logits[: len(batch)].argmax(1)
    target = torch.cat([target, target[:num]])
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), activation, create_graph=True)
    return logits, (gradient * activation).sum(1)


def consistency_of(maps, batch, num, *, negatives):
    plain, view, boxes = maps[:num], maps[len(batch) :], boxes_of(batch)[:num]
    if negatives:
        options = {"size": (16, 16), "temperature": 0.5, "variant": "paper"}
        return consistency.cgc_losses(plain, view, boxes, **options).mean()
    return consistency.l2_loss(plain, view, boxes, (16, 16))


def assert_same(network, loss, reference, expected):
    torch.testing.assert_close(loss, expected, rtol=1e-8, atol=1e-10)
    loss.backward()
    gradients = torch.autograd.grad(expected, list(reference.parameters()), allow_unused=True)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("negatives", "share", "views", "layer"),
    crossed([True, False], [0.5, 1.0], ["plain", "both", "transformed"], ["features.0", "last-stage"], one_in=4),
)
def test_the_loss_is_its_equation(negatives, share, views, layer):
    kind, batch, classifier = CGC if negatives else CGCNoNegatives, make_batch(6), make_classifier()
    settings = kind(weight=0.7, resolution=16, view_layer=layer, views=views, views_share=share)
    step, num = training_step(classifier, settings), round(6 * share)
    step(with_crops_alone(batch))  # the first call verifies the closed form
    reference = make_classifier().network
    reference.load_state_dict(classifier.network.state_dict())
    logits, maps = by_hand(reference, batch, num)
    seen = {"plain": slice(6), "transformed": slice(6, None), "both": slice(None)}[views]
    labels = torch.cat([batch.labels, batch.labels[:num]])
    term = consistency_of(maps, batch, num, negatives=negatives)
    expected = F.cross_entropy(logits[seen], labels[seen]) + 0.7 * term
    assert_same(classifier.network, step(with_crops_alone(batch)).loss, reference, expected)


@pytest.mark.parametrize(("share", "negatives"), [(1.0, True), (0.5, False)])
def test_the_loss_of_a_retrofit_is_its_equation(share, negatives):
    settings = Retrofit(
        weight=0.7, trained=("features.1", "features.2", "fc"), resolution=16, view_layer="trunk",
        views_share=share, negatives=negatives,
    )  # fmt: skip
    classifier, batch, num = make_classifier(), with_crops_alone(make_batch(6)), round(6 * share)
    (phase,) = plan_of(settings, classifier).phases
    phase.begin(0)
    step, teacher = phase.step, copy.deepcopy(classifier.network).eval()
    kept = {name: value.clone() for name, value in classifier.network.features[0].state_dict().items()}
    network = moved(classifier)
    network.features[0].load_state_dict(kept)
    batch = replace(batch, indices=torch.tensor([5, 0, 3, 1, 4, 2]))
    step(batch)  # the first call verifies the closed form, the second finds what was kept
    reference = copy.deepcopy(network).eval().requires_grad_()
    (logits, maps), (theirs, _) = by_hand(reference, batch, num), by_hand(teacher, batch, num)
    expected = oracle.distillation(theirs.detach(), logits, 1.0)
    expected = expected + 0.7 * consistency_of(maps, batch, num, negatives=negatives)
    seen = []
    handle = network.features[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    step(batch)  # hooks of others make it another network, which is looked into again
    seen.clear()
    step(batch)
    handle.remove()
    assert seen == [1], "no photo goes through the trunk again, and its views do not at all"
    assert step.trunk.num_bytes == 6 * step.trunk.image_bytes, "plain photos alone are kept"
    assert_same(network, step(batch).loss, reference, expected)


@pytest.mark.parametrize("views", ["plain", "both"])
def test_beside_unlabelled_images(views):
    batch, classifier = two_batches(), make_classifier()
    unlabelled = batch.unlabelled
    step = training_step(classifier, CGC(weight=0.7, resolution=16, view_layer="features.0", views=views)).eval()
    found = step(with_crops_alone(batch)).loss
    logits, _ = by_hand(classifier.network, batch, len(batch))
    _, maps = by_hand(classifier.network, unlabelled, len(unlabelled))
    seen = logits if views == "both" else logits[: len(batch)]
    entropy = F.cross_entropy(seen, batch.labels.repeat(len(seen) // len(batch)))
    term = consistency_of(maps, unlabelled, len(unlabelled), negatives=True)
    torch.testing.assert_close(found, entropy + 0.7 * term, rtol=1e-8, atol=1e-10)


def test_to_find_the_layer_leaves_no_trace():
    """Statistics of batch norms are those of one pass, of the plain images before the layer and of both behind it."""
    batch, classifier = make_batch(6), make_classifier()
    reference = make_classifier().network.train()
    training_step(classifier, CGC(resolution=16, view_layer="last-stage")).train()(with_crops_alone(batch))
    by_hand(reference, batch, 6)
    torch.testing.assert_close(dict(classifier.network.named_buffers()), dict(reference.named_buffers()))


def test_what_comes_before_runs_for_the_plain_images_alone():
    classifier, batch = make_classifier(), with_crops_alone(make_batch(8))
    step = training_step(classifier, CGC(resolution=16, view_layer="features.0", views="plain", views_share=0.25))
    step(batch)
    seen = []
    for layer in (*classifier.network.features, classifier.network.fc):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    step(batch)  # hooks of others make it another network, which is looked into again
    seen.clear()
    step(batch)
    assert seen[:3] == [8, 10, 10]


def test_views_of_a_layer_are_those_of_images_where_it_commutes_with_the_transform():
    """Pointwise layers and whole cells: mirrored images, and none changed."""
    num = 4
    torch.manual_seed(0)
    pointwise = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.AvgPool2d(2)).double()
    network = nn.Sequential(pointwise, nn.Conv2d(5, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier(nn.Sequential(*network, nn.Linear(6, 3)).double(), *MEAN_AND_STD)
    flips = replace(Crop.identity(num, 16), flip=torch.tensor([True, False, True, True]))
    batch = make_batch(num)
    batch = replace(
        batch, views=(View(torch.where(flips.flip[:, None, None, None], batch.images.flip(3), batch.images), flips),)
    )
    of_images, of_layer = (training_step(classifier, CGC(resolution=16, view_layer=layer)) for layer in (None, "0"))
    expected, found = of_images(batch), of_layer(with_crops_alone(batch))
    torch.testing.assert_close(found.logs, expected.logs, rtol=1e-9, atol=1e-11)


def test_cells_stay_in_place_in_half_precision():
    """A place of 60.3 cells is none that half precision has."""
    features = torch.arange(128.0)[None, None, None].expand(1, 1, 128, 128)
    crop = Crop(*(torch.tensor([v]) for v in (0.0, 50.3, 128.0, 70.7, False)), size=128)
    exact = transformed_features(features, crop)
    found = transformed_features(features.bfloat16(), crop)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() <= 128 * 2**-8
    assert (transformed_features(features.half(), crop).float() - exact).abs().max() <= 128 * 2**-10


class Around(nn.Module):
    """A network with a way around its second layer, and one that gives a map with channels last."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.fc = nn.Conv2d(4, 6, 3, padding=1), nn.Linear(6, 3)
        self.turned = nn.Identity()

    def forward(self, images):
        x = self.first(images)
        x = x + self.second(x.relu())
        x = self.turned(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.fc(self.last(x).relu().mean((2, 3)))


def step_of(network, view_layer, **options):
    return training_step(Classifier(network, *MEAN_AND_STD), CGC(resolution=16, view_layer=view_layer, **options))


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        ("second", LayerError, "`method.view_layer` second is not all that what follows it sees: name a layer"),
        ("turned", LayerError, r"`method.view_layer` turned gives \[3, 4, 4, 4\], which is no map \[N,C,h,w\]"),
        ("fc", LayerError, "`method.view_layer` fc comes behind the explained layer: name one before it"),
        ("nowhere", UnknownNameError, "nowhere"),
    ],
)
def test_a_layer_that_will_not_do_is_refused(layer, kind, message):
    torch.manual_seed(0)
    step = step_of(Around().double(), layer)
    with pytest.raises(kind, match=message):
        step(with_crops_alone(make_batch()))


def test_tokens_are_refused():
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, depth=2, num_classes=3, embed_dim=12
    )  # fmt: skip
    for layer in ("blocks.0", "last-stage"):
        step = step_of(network.double(), layer, layer="blocks.1.norm1")
        with pytest.raises(LayerError, match=r"`method.view_layer` .* which is no map \[N,C,h,w\]"):
            step(with_crops_alone(make_batch()))


def test_what_contradicts_it_is_refused():
    with pytest.raises(ArgumentError, match=r"`method.view_layer` features.0 has no transformed images, which `method"):
        CGC(view_layer="features.0", variant="published-code")
    with pytest.raises(ArgumentError, match=r"`method.view_layer` trunk has no transformed images, and `method.compar"):
        Retrofit(view_layer="trunk", compared_with="teacher", negatives=False)
    step = training_step(make_classifier(), CGC(view_layer="features.0"))
    with pytest.raises(ArgumentError, match=r"`method.view_layer` features.0 makes views of what a layer gives, with"):
        step.plan(Recipe("grey", Digits(), Model(), step.settings, augmentation=Augmentation(grayscale=0.2)))
    with pytest.raises(ArgumentError, match=r"`batch` has no views but their crops: say that the step's `wants`"):
        training_step(make_classifier(), CGC())(with_crops_alone(make_batch()))


@pytest.mark.parametrize("options", [{"trained": ("all",)}, {"mode": "train", "trained": ("fc",)}])
def test_a_retrofit_without_a_trunk_is_refused(options):
    (phase,) = plan_of(Retrofit(resolution=16, view_layer="trunk", **options), make_classifier()).phases
    phase.begin(0)
    with pytest.raises(LayerError, match=r"`method.view_layer` trunk: no part of the network stays as it is"):
        phase.step(with_crops_alone(make_batch()))


@pytest.mark.parametrize("options", [{"augment": "flip"}, {"fuse": "mean(features.1, features)"}], ids=str)
def test_an_explainer_that_asks_in_another_way_is_refused(options):
    """Of a mirrored copy the views of the image would be those of another image."""
    classifier = make_classifier()
    explainer = HiResCAM(classifier.network, **options)
    step = CGCStep(classifier, CGC(resolution=16, view_layer="features.0"), explainer)
    with pytest.raises(
        ArgumentError, match=r"`method.view_layer` .*(needs an explainer of one layer|are about what c)"
    ):
        step(with_crops_alone(make_batch()))


def test_no_pixels_are_made():
    recipe = Recipe("crops", Digits(num_train=8, num_val=4, num_test=4), Model("contrex:convnet"), CGC())
    source = TrainingViews(image_set(recipe.data, "train"), resize=64, size=64, augmentation=Augmentation(), seed=1)
    (expected,) = source[0, 3].to(torch.device("cpu")).views
    source.makes_pixels = False
    (found,) = Batch.join([source[0, 3], source[0, 5]]).to(torch.device("cpu")).views
    assert found.pixels is None
    assert (found.crop.top[0], found.crop.flip[0]) == (expected.crop.top[0], expected.crop.flip[0])


def test_compiled_before_the_layer():
    """The layer of the views is looked into, so that nothing of it is compiled."""
    network = ConvNet(3, widths=(4, 6), strides=(2, 2)).double()
    step = step_of(network, "features.0")
    assert step.looked_into(make_batch().images) == [network.features[0], network.features]
