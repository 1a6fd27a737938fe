"""Scores that are no class's: a user's functions, regions, detections, embeddings, and sums of them."""

import json
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import contrex
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain import EXPLAINERS, Explanation
from contrex.explain.targets import Detection, Logit, Region, Score, Several, Similarity
from explain.networks import images, network
from sampling import crossed

OPTIONS = {
    "rise": {"num_masks": 9},
    "occlusion": {"window": 6},
    "smooth_grad": {"num_samples": 3},
    "integrated_gradients": {"steps": 4},
}
WITHOUT = {
    *("cam", "refine_cam", "attention_rollout", "gradient_attention_rollout", "legrad"),
    *(name for name, kind in EXPLAINERS.items() if not kind.is_class_specific),
}
"""CAM needs all logits of a linear classifier, RefineCAM several resolutions, and the network has no attention to see;
the others know no score."""


class Segments(nn.Module):
    """Logits of five classes for each place, at the images' size or half of it, as torchvision returns them."""

    def __init__(self, *, stride=1):
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride, 1), nn.Tanh(), nn.Conv2d(6, 6, 3, padding=1))
        self.act, self.classifier = nn.ReLU(), nn.Conv2d(6, 5, 1)
        self.double().eval()

    def forward(self, x):
        return {"out": self.classifier(self.act(self.features(x))), "aux": x.mean()}


class Embeds(nn.Module):
    """Embeddings of eight numbers, under the name that transformers gives them."""

    class Output(NamedTuple):
        image_embeds: Tensor
        features: Tensor

    def __init__(self):
        super().__init__()
        self.net = network("mlp")
        self.net.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8)).double()

    def forward(self, x):
        embeddings = self.net(x)
        return self.Output(embeddings, embeddings[:, :2])


class Detects(nn.Module):
    """Two boxes for each image, whose corners and scores depend on it; none in a dark image."""

    def __init__(self):
        super().__init__()
        self.net = network("mlp")

    def forward(self, x):
        found = []
        for raw, image in zip(self.net(x), x, strict=True):
            corners = torch.stack([1 + raw[0], 1 + raw[1], 6 + raw[2], 5 + raw[3]])
            boxes = torch.stack([corners, corners + 1]) if bool(image.any()) else corners[None][:0]
            scores = torch.stack([raw.sum().sigmoid(), raw[0].sigmoid()])[: len(boxes)]
            found.append({"boxes": boxes, "labels": torch.tensor([2, 1])[: len(boxes)], "scores": scores})
        return found


def by_hand(net, x, score, layer=None):
    """The gradient of a score at the pixels, summed over colours; Grad-CAM at a layer."""
    if layer is None:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(score(net(x)).sum(), x)[0].sum(1)
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    (gradient,) = torch.autograd.grad(score(net(x)).sum(), kept.append(None) or kept[0])
    handle.remove()
    return torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), kept[0]).detach()


def third(output):
    return output[:, 2]


@pytest.mark.parametrize("name", crossed([name for name in EXPLAINERS if name not in WITHOUT], one_in=3, start=1))
def test_every_method_explains_a_function(name):
    """The logit of a class as a function is that class, and of two functions the difference is the pair contrast."""
    net, x = network("mlp"), images()
    explain = EXPLAINERS[name](net, **OPTIONS.get(name, {}))
    found, expected = explain(x, score=third), explain(x, target=2)
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.logits[:, 0], expected.logits[:, 2])
    pair = explain(x, score=third, contrast=lambda output: output[:, 1])
    torch.testing.assert_close(pair.heatmap, explain(x, target=2, contrast=1).heatmap, rtol=0, atol=1e-12)
    assert (found.score, found.task, pair.names, pair.contrast) == ("third", "score", ["third", "a function"], 1)


def test_a_function_of_several_logits_in_training_and_at_layers():
    def margin(output):
        return output.softmax(1)[:, 0] * output[:, 1]

    net, x = network("mlp"), images()
    explain = contrex.GradCAM(net)
    expected = by_hand(net, x, margin, net.act)
    torch.testing.assert_close(explain(x, score=margin).heatmap, expected)
    torch.testing.assert_close(explain.layers(x, ["act", "features"], score=margin)["act"].heatmap, expected)
    trained = explain(x, score=margin, differentiable=True).heatmap
    torch.testing.assert_close(trained, expected)
    trained.square().sum().backward()
    assert net.features[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("stride", [1, 2])
def test_a_region_is_its_mean_logit(stride):
    net, x = Segments(stride=stride), images()
    masks = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    small = F.avg_pool2d(masks.double(), stride)

    def mean(output, k=3):
        return (output["out"][:, k] * small).sum((1, 2)) / small.sum((1, 2))

    region = Region(masks, 3)
    torch.testing.assert_close(contrex.Gradient(net)(x, score=region).heatmap, by_hand(net, x, mean))
    torch.testing.assert_close(contrex.GradCAM(net)(x, score=region).heatmap, by_hand(net, x, mean, net.act))
    torch.testing.assert_close(region(net(x)), mean(net(x)) if stride == 1 else region(net(x)))

    def against_all(output):
        means = torch.stack([mean(output, k) for k in range(5)], 1)
        return means[:, 3] - means[:, [0, 1, 2, 4]].logsumexp(1)

    why = contrex.Gradient(net, names=list("abcde"))(x, score=Region(masks), target="d", contrast="weighted")
    torch.testing.assert_close(why.heatmap, by_hand(net, x, against_all))
    assert why.score == "Region(mask)"
    assert why.logits.shape == (3, 5)
    torch.testing.assert_close(why.probability, why.logits.softmax(1)[:, 3])


def test_regions_are_boxes_too_and_every_image_keeps_its_own():
    """Also in methods that ask about copies, chunk by chunk; several classes at once."""
    net, x = Segments(), images()
    masks = torch.zeros(3, 8, 12)
    masks[:, 2:5, 3:7] = 1
    masks[1], masks[2, 2:5, 7] = 1, 0.5
    boxes = torch.tensor([[3, 2, 7, 5], [0, 0, 12, 8], [3, 2, 7.5, 5]])
    kinds = (
        (contrex.SmoothGrad, {"num_samples": 3}),
        (contrex.Occlusion, {"window": 6}),
        (contrex.AblationCAM, {}),
    )
    for kind, options in kinds:
        explain = kind(net, batch_size=2, **options)
        found = explain(x, score=Region(boxes, [0, 1, 2])).heatmap
        torch.testing.assert_close(found, explain(x, score=Region(masks, [0, 1, 2])).heatmap)
        for n in range(3):
            alone = explain(x[n : n + 1], score=Region(masks[n], n)).heatmap
            torch.testing.assert_close(found[n : n + 1], alone)
    many = contrex.GradCAM(net).classes(x, 2, score=Region(masks))
    first = contrex.GradCAM(net)(x, score=Region(masks))
    torch.testing.assert_close(many.heatmap[:, 0], first.heatmap)
    assert torch.equal(many.target[:, 0], first.logits.argmax(1))


def test_relevance_of_a_region():
    """It is linear in the logits, so that of a region is the mean of that of its pixels."""
    net, x = Segments(), images(1)
    net.features[1] = nn.ReLU()
    mask = torch.zeros(8, 12)
    mask[2:4, 3:5] = 1
    whole = contrex.LRP(net)(x, score=Region(mask, 2)).heatmap
    pixels = [
        contrex.LRP(net)(x, score=lambda output, at=at: output["out"][:, 2, at[0], at[1]]).heatmap
        for at in mask.nonzero().tolist()
    ]
    torch.testing.assert_close(whole, sum(pixels) / 4)


def test_regions_and_boxes_of_half_precision():
    """Their sizes in pixels are numbers that half has not: more than 65504."""
    torch.manual_seed(0)
    net, x = nn.Conv2d(3, 4, 1), torch.rand(1, 3, 300, 300)
    whole = torch.ones(300, 300, dtype=torch.bool)
    exact = contrex.GradientTimesInput(net)(x, score=Region(whole, 1))
    half = contrex.GradientTimesInput(net.half())(x.half(), score=Region(whole, 1))
    torch.testing.assert_close(half.logits, exact.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(half.heatmap.sum(), exact.heatmap.sum(), rtol=1e-2, atol=0)
    box = torch.tensor([[0.0, 0, 300, 300]])
    found = {"boxes": box.half(), "labels": torch.tensor([1]), "scores": torch.tensor([0.5]).half()}
    torch.testing.assert_close(Detection(box, 1)([found]), torch.tensor([0.5]))


def test_one_class_of_a_mask_alone():
    """Binary segmentation: one logit for each pixel, whose two sides are its classes."""
    net, x = Segments(), images()
    net.classifier = nn.Conv2d(6, 1, 1).double()
    region = Region((3, 2, 7, 5))
    yes = contrex.GradCAM(net)(x, score=region, target=1)
    both = contrex.GradCAM(net).classes(x, classes=[1, 0], score=region)
    torch.testing.assert_close(both.pair(0, 1).heatmap, yes.heatmap)
    assert yes.task == "binary"


@pytest.mark.slow
def test_torchvisions_segmentation():
    torch.manual_seed(0)
    net = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    ).eval()
    x = torch.rand(1, 3, 32, 48)
    why = contrex.GradCAM(net, "backbone.4")(x, score=Region((8, 8, 32, 24), 1), contrast=2)

    def difference(output):
        means = output["out"][:, :, 8:24, 8:32].mean((2, 3))
        return means[:, 1] - means[:, 2]

    torch.testing.assert_close(why.heatmap, by_hand(net, x, difference, net.backbone["4"]), rtol=1e-3, atol=1e-7)


def test_similarity_is_the_cosine():
    net, x = Embeds(), images()
    one, other = torch.randn(8), torch.randn(3, 8)

    def cosine(output, reference):
        return F.cosine_similarity(output.image_embeds, reference.double().expand(3, 8))

    for reference in (one, other):
        why = contrex.Gradient(net)(x, score=Similarity(reference))
        torch.testing.assert_close(why.heatmap, by_hand(net, x, lambda o, r=reference: cosine(o, r)))
        torch.testing.assert_close(why.logits[:, 0], cosine(net(x), reference))
    explain = contrex.GradCAM(net)
    rather = explain(x, score=Similarity(one), contrast=Similarity(other))
    expected = explain(x, score=Similarity(one)).heatmap - explain(x, score=Similarity(other)).heatmap
    torch.testing.assert_close(rather.heatmap, expected)
    masked = contrex.Occlusion(net, window=6, batch_size=2)(x, score=Similarity(other))
    alone = contrex.Occlusion(net, window=6)(x[2:], score=Similarity(other[2]))
    torch.testing.assert_close(masked.heatmap[2:], alone.heatmap)
    at_output = contrex.Gradient(net, output=lambda output: output.features)
    torch.testing.assert_close(at_output(x, score=lambda two: two[:, 1]).logits[:, 0], net(x).features[:, 1])


def test_a_network_without_classifier_has_embeddings_and_no_classes():
    net = network()
    net.head.fc = nn.Identity()
    net.fc = nn.Identity()
    with pytest.raises(ArgumentError, match="`model` Net has no classifier"):
        contrex.GradCAM(net)(images())
    assert contrex.GradCAM(net)(images(), score=Similarity(torch.ones(6))).heatmap.shape == (3, 4, 6)


def test_a_detection_is_overlap_times_score():
    net, x = Detects(), images()
    with torch.no_grad():
        first = [found["boxes"][0] for found in net(x)]
    box = torch.stack(first) + torch.tensor([0.5, 0, 0.5, 0])

    def best(output):
        pairs = zip(output, box, strict=True)
        overlaps = [(torchvision.ops.box_iou(o["boxes"][:1].detach(), b[None])[0, 0], o["scores"][0]) for o, b in pairs]
        return torch.stack([overlap * score for overlap, score in overlaps])

    why = contrex.Gradient(net)(x, score=Detection(box, 2))
    torch.testing.assert_close(why.heatmap, by_hand(net, x, best), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(why.logits[:, 0], best(net(x)).detach(), rtol=1e-5, atol=1e-8)
    cam = contrex.GradCAM(net)(x, score=Detection(box, torch.tensor([2, 2, 1])))
    torch.testing.assert_close(cam.heatmap[:2], by_hand(net, x, best, net.net.act)[:2], rtol=1e-5, atol=1e-8)
    whole = contrex.Occlusion(net, window=(8, 12))(x, score=Detection(box))  # nothing is left, so all of it is lost
    torch.testing.assert_close(whole.heatmap[:, 0, 0], Detection(box)(net(x)).detach(), rtol=1e-5, atol=1e-8)
    with pytest.raises(
        ArgumentError, match=r"nothing that the network detects of this label overlaps the box of image 0"
    ):
        contrex.Gradient(net)(x, score=Detection((50, 50, 60, 60), 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_torchvisions_detection(name):
    torch.manual_seed(0)
    net = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, num_classes=5).eval()
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        found = net(x)
    detection = Detection(torch.stack([o["boxes"][3] for o in found]), torch.stack([o["labels"][3] for o in found]))
    why = contrex.Gradient(net)(x, score=detection)
    torch.testing.assert_close(why.logits[:, 0], torch.stack([o["scores"][3] for o in found]), rtol=1e-3, atol=1e-5)
    pixels = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(sum(o["scores"][3] for o in net(pixels)), pixels)
    torch.testing.assert_close(why.heatmap, expected.sum(1), rtol=1e-3, atol=1e-6)
    assert contrex.GradCAM(net)(x, score=detection).heatmap.abs().max() > 0


def test_several_in_one_map():
    net, x = network("mlp"), images()
    explain = contrex.HiResCAM(net)
    both = explain(x, score=Several([Logit(1), third, Logit(torch.tensor([0, 1, 3]))], [1, 0.5, -2]))
    parts = [explain(x, target=target).heatmap for target in (1, 2, [0, 1, 3])]
    torch.testing.assert_close(both.heatmap, parts[0] + 0.5 * parts[1] - 2 * parts[2])
    assert both.score == "Logit(1) + 0.5 third + -2 Logit(one per image)"
    torch.testing.assert_close(explain(x, score=Logit(), contrast="mean").heatmap, explain(x, contrast="mean").heatmap)
    segments, boxes = Segments(), torch.tensor([[0, 0, 3, 4], [3, 2, 7, 5], [0, 0, 12, 8]])
    summed = contrex.Occlusion(segments, window=6, batch_size=3)(
        x, score=Several([Region(boxes, 1), Region((1, 1, 3, 3), 0)])
    )
    parts = [
        contrex.Occlusion(segments, window=6)(x, score=one).heatmap
        for one in (Region(boxes, 1), Region((1, 1, 3, 3), 0))
    ]
    torch.testing.assert_close(summed.heatmap, sum(parts))


def test_what_an_explanation_says_of_a_score(tmp_path):
    net, x = network("mlp"), images()
    why = contrex.GradCAM(net)(x, score=third, contrast=Logit(1))
    assert repr(why) == "Explanation(3 images: third rather than Logit(1); grad_cam of third at act, 4 x 6)"
    assert repr(why[0]).startswith("Explanation(why third rather than Logit(1)? third -0.")
    assert why.unit == "share of the score"
    assert why.foils.tolist() == [[1]] * 3
    with pytest.raises(ArgumentError, match="`probability` needs classes, and what is explained is a score without"):
        why.probability  # noqa: B018
    why.on(x).save(tmp_path / "why.png")
    why.save(tmp_path / "why.json")
    told = json.loads((tmp_path / "why.json").read_text())
    assert (told["score"], told["task"]) == ("third", "score")
    names = [score["name"] for score in told["questions"][0][0]["scores"]]
    assert names == ["third", "Logit(1)"]
    joined = Explanation.cat([why[0], why[1:]])
    assert torch.equal(joined.heatmap, why.heatmap)
    with pytest.raises(
        ArgumentError, match="`explore` asks about logits of whole pictures, and this is of third: show it"
    ):
        why.on(x).explore()
    of_probability = contrex.GradCAM(network("mlp")).classes(images(), k=3, score="probability")
    with pytest.raises(ArgumentError, match="`explore` asks about logits of classes, and this is of their probability"):
        of_probability.on(images()).explore()


def test_a_class_that_is_none_is_named():
    for target in (99, -1, [0, 1, 99]):
        with pytest.raises(ArgumentError, match=r"`Logit target` must be between 0 and 3, the model's classes; got"):
            contrex.GradCAM(network("mlp"))(images(), score=Several([Logit(target), Logit(1)]))


class Heads(nn.Module):
    """Two numbers, of which the second passes the last layer by."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.double().eval()

    def forward(self, x):
        early = self.first(x).tanh()
        late = self.last(early)
        return {"late": late.mean((1, 2, 3)), "early": late.mean((1, 2, 3)) + early.square().mean((1, 2, 3))}


class Head(Score):
    """One of the numbers, by its key."""

    def __init__(self, key):
        self.key = key

    def __call__(self, output):
        return output[self.key]


@dataclass
class Comparable(Head):
    """The same, which says of itself when it equals another, and so has no hash."""

    key: str


@pytest.mark.parametrize("kind", [Head, Comparable])
def test_scores_of_ones_own_are_not_taken_for_each_other(kind):
    """Each may read another head, which comes through other layers."""
    explain = contrex.GradCAM(Heads())
    for key, layer in (("late", "last"), ("early", "first"), ("late", "last")):
        assert explain(images(), score=kind(key)).layer == layer


def test_layers_are_looked_up_for_each_score():
    """Another score may come another way through the network, and a function of the same name is another."""
    net = Segments()

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

        def forward(self, x):
            return self.one(x).square().mean((2, 3)), self.other(x).square().mean((2, 3))

    explain, x = contrex.GradCAM(Two().double()), images()
    for place, layer in ((0, "one"), (1, "other"), (0, "one")):
        explain(x, score=lambda output, place=place: output[place][:, 1])
        assert explain.layer == layer
    explain = contrex.GradCAM(net)
    explain(x, score=Region((0, 0, 4, 4), 1))
    known = len(explain._sites._found)
    explain(x, score=Region((2, 0, 4, 4), 3))
    assert len(explain._sites._found) == known  # regions go the same way: nothing was looked up again


def test_a_score_that_depends_on_the_other_images():
    def wrong(output):
        return output.softmax(0)[:, 1]

    net, x = network("mlp"), images()
    with pytest.raises(ArgumentError, match=r"`score` wrong gives 1 for the first image alone, and .* beside the othe"):
        contrex.Gradient(net)(x, score=wrong)
    contrex.Gradient(net)(x[:1], score=wrong)


class Unfit(Score):
    def __call__(self, output):
        return output


MASK = torch.ones(8, 12)
WRONG = {
    "a sum": ({"score": lambda o: o.sum()}, r"`score` a function must give one number per image, .*\[3\] for 3 image"),
    "a row": ({"score": Unfit()}, r"`score` Unfit must give one number per image, .* it gave a tensor \[3, 4\] of a t"),
    "a key": ({"score": lambda o: o["out"][:, 0]}, r"`score` a function cannot read what Net returned, a tensor"),
    "an index": ({"score": lambda o: o[:, 9]}, r"`score` a function cannot read .* raises IndexError \(index 9 is out"),
    "no function": (
        {"score": 3},
        "`score` must be one of logit, probability, log_probability, or a function .* got int",
    ),
    "a name": ({"score": "logits"}, "`score` must be one of logit, probability, log_probability; got 'logits'"),
    "a class contrast": (
        {"score": third, "contrast": "max"},
        "`contrast` 'max' needs classes, `score` third is one num",
    ),
    "a function contrast": (
        {"contrast": third},
        "`contrast` is a function, and `score` is 'logit' of a class: pass a f",
    ),
    "a target": ({"score": third, "target": 2}, "`target` means nothing here, `score` third is one number per image"),
    "a task": ({"score": third, "task": "binary"}, "`task` means nothing here, `score` third is one number per image"),
    "our task": ({"task": "score"}, "`task` must be one of multiclass, binary, multilabel; got 'score'"),
    "two targets": ({"score": Logit(1), "target": 2}, r"`target` and `score` Logit\(1\) both name a class"),
    "no gradient": ({"score": lambda o: o.argmax(1).double()}, "or `score` a function has none .argmax"),
    "not finite": (
        {"score": lambda o: o[:, 0] / 0},
        r"`score` a function is \[-?inf\] for image 0: check the function",
    ),
    "no map": (
        {"score": Region(MASK)},
        r"`score` needs logits of each place \[N,K,H,W\], the network returned a tensor",
    ),
    "a mask": (
        {"score": Region(MASK[1:])},
        r"where must be a mask \[8,12\] in the size of the images, or one per image",
    ),
    "masks": ({"score": Region(MASK[None])}, r"`Region` where must be one, or one per image, 3; got 1"),
    "empty": ({"score": Region(MASK * 0)}, "`Region` where is empty for image 0: name pixels of the image"),
    "negative": ({"score": Region(-MASK)}, "`Region` where must be weights from 0 on"),
    "no detections": (
        {"score": Detection((0, 0, 4, 4))},
        "`Detection` needs a dictionary of boxes, labels and scores fo",
    ),
    "boxes": (
        {"score": Detection([[0, 0, 4, 4]])},
        r"`Detection` box must be .*, or one per image, \[3,4\]; got \[1, 4",
    ),
    "turned": ({"score": Detection((4, 0, 0, 4))}, "`Detection` box must have xmin < xmax and ymin < ymax, got"),
    "labels": ({"score": Detection((0, 0, 4, 4), [1, 2])}, "`Detection` label must be one, or one per image; got"),
    "length": (
        {"score": Similarity(torch.ones(7))},
        "`Similarity` reference has 7 numbers, the network's embeddings h",
    ),
    "zero": (
        {"score": Similarity(torch.zeros(4))},
        r"`Similarity` reference must be an embedding \[D\], or one per im",
    ),
    "rows": ({"score": Several([Logit([0, 1])])}, "`Logit` target must be one, or one per image, 3; got 2"),
    "no number": ({"score": Several([Logit("cat")])}, "needs the number of its class where it is one of several"),
}


@pytest.mark.parametrize(("asked", "message"), WRONG.values(), ids=WRONG)
def test_what_is_asked_wrongly(asked, message):
    with pytest.raises(ArgumentError, match=message):
        contrex.Gradient(network("mlp"))(images(), **asked)


def test_other_refusals():
    net, x = network("mlp"), images()
    with pytest.raises(ArgumentError, match="`Several` weights must be one for each of the 2 scores, got 1"):
        Several([third, third], [1])
    with pytest.raises(ArgumentError, match="`Several` scores must be functions or scores, at least one"):
        Several([])
    with pytest.raises(ArgumentError, match="`classes` needs classes, and `score` third has none"):
        contrex.GradCAM(net).classes(x, score=third)
    with pytest.raises(ArgumentError, match="`classes` needs classes, and a contrast is a function"):
        contrex.GradCAM(net).classes(x, 2, contrast=third)
    with pytest.raises(ArgumentError, match="`score` means nothing to EigenCAM"):
        contrex.EigenCAM(net)(x, score=third)
    with pytest.raises(LayerError, match=r"`score` a function has no gradient \(argmax, .detach"):
        contrex.GradCAM(net)(x, score=lambda output: output.argmax(1).double())
    assert contrex.ScoreCAM(net, "act")(x, score=lambda output: output.argmax(1).double()).heatmap.shape == (3, 4, 6)
    with pytest.raises(UnknownNameError, match="`score`"):
        contrex.GradCAM(net).classes(x, 2, score="odds")
    with pytest.raises(ArgumentError, match="`score` of `why` must be a text, it is about classes"):
        contrex.why("cat.jpg", net, score=third)

    class Twice(contrex.Gradient):
        def _forward(self, images, *, differentiable):
            return super()._forward(torch.cat([images, images]), differentiable=differentiable)

    with pytest.raises(
        ArgumentError, match=r"`score` Region\(mask, 1\) has something for 3 image\(s\), and this method"
    ):
        Twice(Segments())(x, score=Region(MASK, 1))


def test_an_explanation_of_a_score_leaves_no_trace():
    net, x = network("mlp").train(), images()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        contrex.GradCAM(net)(x.clone(), score=third)
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_hooks for module in net.modules())
