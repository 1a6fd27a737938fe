"""Every protocol shows its metric what it should: its numbers are those of the pure functions, called by hand."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

import contrex
from contrex.data.streams import stream
from contrex.data.views.evaluation import EvaluationViews
from contrex.evaluation import PROTOCOLS, Bench, Group, evaluate
from contrex.evaluation.embedding import tsne
from contrex.metrics import (
    at_spread,
    bootstrap_interval,
    content_heatmap,
    crop_of_strength,
    deletion_curve,
    equivariance_similarity,
    expected_calibration_error,
    fgsm,
    infidelity,
    kept_probabilities,
    map_similarity,
    masked_relative_probability,
    max_sensitivity,
    pixel_bounds,
    pointing_game,
    randomized,
    score_gradient,
    stochastic_pointing_game,
    two_most_probable,
)
from contrex.metrics.removal import baseline_images
from contrex.models import eval_mode
from contrex.ops.geometry import Crop, warp_images
from contrex.ops.pixels import explanation_mask
from contrex.records.version1 import completed
from contrex.settings import (
    Baseline,
    Embedding,
    Evaluation,
    GradientSign,
    GridPointing,
    Infidelity,
    MaxSensitivity,
    Pointing,
    RelativeProbability,
    SingleDeletion,
)
from evaluation.test_run import subject
from sampling import sampled

NUM = 34  # a group of 32 and one of 2
NEED_MORE = ("grid_pointing_game", "human_alignment", "repeatability")
"""Need a classifier that is right, maps by people, or other networks: test_compared.py."""
OTHERS = tuple(
    name
    for name in PROTOCOLS
    if name not in ("top1", "top5", "content_heatmap", "cgc_loss", "insertion_auc", *NEED_MORE)
)
OPTIONS = Evaluation(
    metrics=OTHERS,
    split="test",
    limit=NUM,
    limit_by="order",
    gallery=0,
    num_bootstrap=20,
    seed=5,
    device="cpu",
    pointing=Pointing(tolerance=2.0, num_samples=7),
    infidelity=Infidelity(num_samples=3, noise_std=0.2),
    max_sensitivity=MaxSensitivity(num_samples=2, radius=0.05),
    relative_probability=RelativeProbability(threshold=0.1255, baselines=("zero", "mean")),
    drop_fractions=(0.2, 0.5),
    equivariance_shares=(0.5,),
    fgsm_epsilons=(8 / 255,),
    deletion_baseline="mean",
    embedding=Embedding(num_classes=3, num_images=2),
    equal_spread=0.3,
)


@pytest.fixture(scope="module")
def run():
    return evaluate(subject(), OPTIONS)


@pytest.fixture(scope="module")
def group():
    """All the images at once, as the protocols see them in two groups."""
    views = EvaluationViews(subject().images, (32, 32), whole_side=32, needs_whole=True, gallery=())
    return Group(Bench(subject(), OPTIONS), [views[index] for index in range(NUM)])


def column(run, name):
    return torch.from_numpy(run.samples.values[name])


def assert_column(run, name, expected):
    torch.testing.assert_close(column(run, name), expected.double().cpu(), rtol=2e-4, atol=2e-5, equal_nan=True)


def seeds(purpose):
    return [int(stream(purpose, 5, index).integers(2**62)) for index in range(NUM)]


def test_every_number_has_its_family_and_an_interval(run):
    assert {metric.family.name for metric in run.record.metrics} == set(OTHERS)
    for metric in run.record.metrics:
        values = column(run, metric.name)
        assert metric.num_counted + metric.num_skipped == NUM
        assert values.nanmean().item() == pytest.approx(metric.value, rel=1e-4, abs=1e-9)
        if metric.name != "ece":
            low, high = bootstrap_interval(values, num_resamples=20, seed=5)
            assert (metric.low, metric.high) == pytest.approx((low, high), rel=1e-3, abs=1e-5)


def test_a_record_says_what_sets_its_metrics_apart(run):
    """As records of version 1 were read by their names, and more."""
    plain = [{"name": m.name, "title": m.title, "family": m.family.name, "value": m.value} for m in run.record.metrics]
    for metric, before in zip(run.record.metrics, completed({"metrics": plain}, run.samples)["metrics"], strict=True):
        places = [(of.get("table"), of.get("section"), of.get("row")) for of in (vars(metric.family), before["family"])]
        assert places[0] == tuple(word or "" for word in places[1]), metric.name
        assert dict(before["dims"]).items() <= dict(metric.dims).items()
        assert metric.per_image == before["per_image"]
        assert metric.family.title
        assert metric.family.meaning.endswith("."), metric.name
    sets = [(metric.family.name, *metric.dims.items()) for metric in run.record.metrics]
    assert len(set(sets)) == len(sets), "no two metrics of a family have the same dimensions"
    assert [profile.chart for profile in run.record.profiles].count("reliability") == 1


MEANINGS = {
    "content_heatmap": [({"region": "boxes"}, "inside the object's box,"), ({"region": "mask"}, "the object's mask,")],
    "pointing_game": [
        ({"pointing": Pointing(tolerance=3)}, "the object's box, or less than 3 pixels away from it."),
        ({"pointing": Pointing(tolerance=0), "region": "mask"}, "lies inside the object's mask."),
    ],
    "insertion_auc": [
        ({}, "return to a blurred image,"),
        ({"insertion_baseline": "zero"}, "an empty image of the data set's mean colour,"),
        ({"insertion_baseline": "road"}, "with noise (ROAD),"),
    ],
    "deletion_auc": [({}, "pixels are removed,"), ({"deletion_baseline": "blur"}, "are blurred away,")],
    "infidelity": [
        ({}, "heatmap, scaled to its best fit, is from predicting what happens to the probability"),
        (
            {"infidelity": Infidelity(output="logit", normalise=False)},
            "heatmap is from predicting what happens to the logit",
        ),
    ],
    "gradient_sign": [
        ({}, "every pixel takes one small step"),
        ({"gradient_sign": GradientSign(num_steps=10)}, "takes 10 small steps"),
    ],
    "max_sensitivity": [({}, "the worst of 10 tiny changes")],
    "content_heatmap_at_spread": [
        ({"equal_spread": 0.125, "region": "mask"}, "object's mask once"),
        ({}, "it covers 25 % of"),
    ],
    "grid_pointing_game": [({"grid_pointing": GridPointing(size=2)}, "a grid of 2 x 2 images of as many classes")],
    "single_deletion": [({"single_deletion": SingleDeletion(output="probability")}, "the more of the probability of")],
    "stochastic_pointing_game": [({}, "How many of 100 points drawn")],
}
"""What a report must say under which settings."""


@pytest.mark.parametrize("baseline", get_args(Baseline))
def test_every_baseline_of_the_curves_has_words(baseline):
    bench = Bench(subject(), Evaluation(device="cpu", insertion_baseline=baseline, deletion_baseline=baseline))
    for name in ("insertion_auc", "deletion_auc"):
        assert PROTOCOLS[name](bench).meaning().startswith("The mean probability while pixels ")


@sampled(one_in=3)
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in NEED_MORE[1:]])
def test_a_meaning_is_true_of_the_settings(name):
    kind = PROTOCOLS[name]
    for changes, words in MEANINGS.get(name, [({}, "")]):
        meaning = kind(Bench(subject(), Evaluation(device="cpu", **changes))).meaning()
        assert words in meaning
        assert meaning[0].isupper()
        assert len(meaning) > 30
    assert kind.title


def test_calibration(run, group):
    confidence, prediction = group.logits.double().softmax(1).max(1)
    error = 100 * expected_calibration_error(confidence, prediction == group.labels, num_bins=15)
    assert run.record.metric("ece").value == pytest.approx(error.item(), rel=1e-6)
    (reliability,) = (p for p in run.record.profiles if p.name == "reliability")
    points = reliability.lines[""]
    assert all(low <= y <= high for _, y, low, high in points)
    assert sum(x * (len(points) == 1) for x, *_ in points) in (0, pytest.approx(confidence.mean().item()))


def test_fgsm(run, group):
    bench = group.bench
    lower, upper = pixel_bounds((0.5,) * 3, (0.25,) * 3)
    moved = fgsm(bench.network, group.squares, group.labels, epsilon=8 / 255, std=0.25, lower=lower, upper=upper)
    right = bench.logits(moved).argmax(1) == group.labels
    assert_column(run, "fgsm_top1_8_255", 100.0 * right)


def test_localisation(run, group):
    (same,) = group.wholes
    boxes, sizes = [one.boxes for one in same.images], [one.image_size for one in same.images]
    assert_column(run, "pointing_game_2", pointing_game(same.heatmaps, boxes, sizes, tolerance=2))
    stochastic = stochastic_pointing_game(
        same.heatmaps, boxes, sizes, seeds=seeds("pointing game"), num_samples=7, tolerance=2
    )
    assert_column(run, "stochastic_pointing_game_2", stochastic)
    equal = content_heatmap(at_spread(same.heatmaps, 0.3), boxes, sizes)
    assert_column(run, "content_heatmap_at_spread_30", equal)


def test_masks_instead_of_boxes(group):
    options = replace(OPTIONS, metrics=("content_heatmap",), region="mask")
    run = evaluate(subject(), options)
    (same,) = group.wholes
    masks = [subject().images[index].mask for index in range(NUM)]
    assert_column(run, "content_heatmap", content_heatmap(same.heatmaps, masks, [(32, 32)] * NUM))
    assert run.record.metric("content_heatmap").protocol["region"] == "mask"
    square = evaluate(subject(), replace(options, content_heatmap_protocol="square"))
    assert square.record.metric("content_heatmap").value == pytest.approx(
        run.record.metric("content_heatmap").value, rel=1e-6
    )


@pytest.mark.parametrize("contrast", [None, "weighted"])
def test_relative_probability(group, contrast):
    options = replace(OPTIONS, metrics=("relative_probability",), contrast=contrast)
    run = evaluate(subject(), options)
    network, top2 = group.bench.network, two_most_probable(group.logits)
    explainer = contrex.GradCAM(network)
    own, other = (
        explainer.classes(group.squares, classes=top2, contrast=c).heatmap
        for c in (contrast, None if contrast else "weighted")
    )
    values = masked_relative_probability(
        network,
        group.squares,
        own,
        other,
        top2=top2,
        baselines=baseline_images(group.squares, ["zero", "mean"]),
        threshold=0.1255,
        logits=group.logits,
    )
    counted = ~values[:, 0, 0, 0].isnan()
    assert 0 < counted.sum() < NUM, "choose a threshold that keeps some"
    for sign, s in (("positive", 0), ("negative", 1)):
        for baseline, b in (("zero", 0), ("mean", 1)):
            for place in (0, 1):
                assert_column(run, f"relative_probability_{sign}_{baseline}_t{place + 1}", values[:, s, b, place])
    pair = group.logits.double().gather(1, top2).softmax(1)
    assert_column(run, "relative_probability_t1", pair[:, 0].where(counted, torch.nan))
    protocol = run.record.metric("relative_probability_t1").protocol
    assert (protocol["against"], protocol["protocol"]) == ("original" if contrast else "weighted", "same-area")


def test_the_published_masking_draws_its_blur(group):
    options = replace(
        OPTIONS,
        metrics=("relative_probability",),
        relative_probability=RelativeProbability(protocol="published-code", threshold=0.0, baselines=("blur",)),
    )
    run, fixed = (
        evaluate(subject(), replace(options, relative_probability=replace(options.relative_probability, protocol=p)))
        for p in ("published-code", "same-area")
    )
    assert run.record.metric("relative_probability_t1").protocol["sigma"] == "drawn from 10 to 20"
    name = "relative_probability_positive_blur_t1"
    assert run.record.metric(name).num_counted == NUM
    assert run.record.metric(name).value != fixed.record.metric(name).value


def test_gradient_sign(run, group):
    network, std = group.bench.network, 0.25
    with torch.no_grad():
        for name, contrast in (("original", None), ("weighted", "weighted")):
            sign = score_gradient(network, contrast)(group.squares, group.labels).sign()
            moved = (group.squares + 3e-3 / std * sign).clamp(-2, 2)
            change = group.bench.logits(moved).softmax(1) - group.logits.softmax(1)
            expected = change.gather(1, group.labels[:, None])[:, 0]
            assert_column(run, f"gradient_sign_{name}_probability_0_003", expected)
    profile = next(p for p in run.record.profiles if p.name == "gradient_sign_accuracy")
    right = 100 * (group.logits.argmax(1) == group.labels).double().mean().item()
    assert list(profile.lines) == ["original", "mean", "max", "weighted"]
    assert all(points[0][:2] == pytest.approx((0, right)) for points in profile.lines.values())
    assert [point[0] for point in profile.lines["mean"]] == [0, 1e-3, 3e-3]


def test_faithfulness(run, group):
    network = group.bench.network
    probs, kept = kept_probabilities(network, group.squares, group.saliency, fractions=(0.2, 0.5))
    assert_column(run, "drop_magnitude_50", (probs - kept[:, 1]).clamp(min=0) / probs)
    assert_column(run, "increase_percent_20", 100.0 * (kept[:, 0] > probs))
    values = infidelity(
        network,
        group.squares,
        group.saliency,
        num_samples=3,
        noise_std=0.2,
        seeds=seeds("infidelity"),
        output="probability",
        normalise=True,
    )
    assert_column(run, "infidelity", values)
    explainer = contrex.GradCAM(network)
    sensitivity = max_sensitivity(
        lambda x, t: explainer(x, target=t).heatmap,
        group.squares,
        num_samples=2,
        radius=0.05,
        seeds=seeds("max-sensitivity"),
        target=group.explanation.target,
    )
    assert_column(run, "max_sensitivity", sensitivity)
    curve = deletion_curve(network, group.squares, group.saliency, step=256, baseline="mean")
    assert_column(run, "deletion_auc_mean", torch.trapezoid(curve.double(), dx=0.25))


def test_equivariance(run, group):
    explainer = contrex.GradCAM(group.bench.network)
    for name, share, flip in (("equivariance_error_100_flip", 1.0, True), ("equivariance_error_50", 0.5, False)):
        place = [stream("equivariance", 5, index, round(100 * share)) for index in range(NUM)]
        crops = Crop.stack([crop_of_strength(1, 32, share=share, flip=flip, generator=g) for g in place])
        moved = explainer(warp_images(group.squares, crops), target=group.explanation.target).heatmap
        assert_column(run, name, 1 - equivariance_similarity(group.explanation.heatmap, moved, crops, size=32))


def test_parameter_randomization(run, group):
    for _, network in randomized(group.bench.network, stages=(), seed=5):
        other = contrex.GradCAM(network)(group.squares, target=group.explanation.target).heatmap
        assert_column(run, "randomization_spearman", map_similarity(group.explanation.heatmap, other))
    profile = next(p for p in run.record.profiles if p.name == "randomization")
    assert profile.x_title.endswith("from the top: fc, features")
    assert [round(point[0]) for point in profile.lines[""]] == [0, 1, 2]
    assert profile.lines[""][0][1] == 1


class Constant(contrex.EigenCAM):
    """Answers the same for every network and image."""

    def _maps(self, run, question, *, differentiable):
        ramp = torch.arange(64.0).view(1, 1, 8, 8)
        return ramp.expand(len(run.logits), question.rows.shape[1], 8, 8).clone()


def test_an_explainer_that_ignores_the_network_is_flagged(monkeypatch):
    monkeypatch.setitem(contrex.explain.EXPLAINERS, "constant", Constant)
    verdicts = {}
    for name in ("constant", "grad_cam"):
        found = evaluate(subject(), replace(OPTIONS, metrics=("parameter_randomization",), explainer=name))
        verdicts[name] = found.record.metrics[0].protocol["verdict"]
    assert verdicts == {"constant": "flagged: it does not change", "grad_cam": "changes"}


def test_embedding(run, group):
    mask = explanation_mask(group.explanation.heatmap, (32, 32))[:, None]
    network = group.bench.network
    with torch.no_grad(), eval_mode(network):
        features = [network.features(x).mean((2, 3)) for x in (group.squares, group.squares * mask)]
    assert_column(run, "feature_similarity_masked", torch.cosine_similarity(*features))
    (scatter,) = run.record.scatters
    labels = [int(label) for *_, label, kind in scatter.points if kind == "image"]
    found = run.samples.labels.tolist()
    assert labels == [n for n in (0, 4, 9) for _ in range(min(found.count(n), 2))]
    assert {kind for *_, kind in scatter.points} == {"image", "augmentation", "masked"}


FORWARDS = {
    "fgsm": 1 + 1,  # the direction, one epsilon
    "gradient_sign": 1 + 1 + 4 * 2,  # the gradients, the logits, four scores and two epsilons
    "relative_probability": 1 + 1 + 2 * 2 * 2,  # logits, both contrasts, two classes, signs and baselines
    "embedding": 1 + 2,  # image, augmentation, masked image
}


@sampled(one_in=2)
@pytest.mark.parametrize("name", FORWARDS)
def test_no_pass_is_run_twice(name):
    some = subject()
    bench = Bench(some, replace(OPTIONS, relative_probability=replace(OPTIONS.relative_probability, threshold=0.0)))
    views = EvaluationViews(some.images, (32, 32), whole_side=32, needs_whole=True, gallery=())
    seen: list[int] = []
    bench.network.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    bench.explainer(bench.normalise(views[0].square[None]))  # finds its layer
    seen.clear()
    protocol = PROTOCOLS[name](bench)
    needs = {"has_heatmaps": protocol.needs_heatmaps, "has_features": protocol.needs_features}
    protocol.judge(Group(bench, [views[index] for index in range(11)], **needs))
    assert sum(seen) == 11 * FORWARDS[name]


@pytest.mark.parametrize("explainer", ["grad_cam", "smooth_grad"])
def test_features_are_those_of_the_image_whatever_else_the_explainer_runs(explainer):
    bench = Bench(subject(), replace(OPTIONS, explainer=explainer, batch_size=4))
    views = EvaluationViews(subject().images, (32, 32), whole_side=32, needs_whole=False, gallery=())
    group = Group(bench, [views[index] for index in range(6)], has_features=True)
    with torch.no_grad(), eval_mode(bench.network):
        expected = bench.network.features(group.squares).mean((2, 3))
    torch.testing.assert_close(group.features, expected)


def test_tsne_keeps_neighbours_together():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(centre, 0.05, (20, 5)) for centre in np.eye(5)[:3] * 3]).astype(np.float32)
    points = tsne(features, seed=0)
    centres = points.reshape(3, 20, 2).mean(1)
    spread = max(np.linalg.norm(points.reshape(3, 20, 2) - centres[:, None], axis=2).max(1))
    distance = min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert spread < distance
    assert tsne(features[:3], seed=0) is None


def test_images_that_do_not_count_are_skipped_by_name():
    nothing = replace(OPTIONS.relative_probability, threshold=0.9)
    run = evaluate(subject(), replace(OPTIONS, metrics=("relative_probability",), relative_probability=nothing))
    metric = run.record.metrics[0]
    assert (metric.num_counted, metric.num_skipped) == (0, NUM)
    assert math.isnan(metric.value)
    assert metric.skip_reason == "probability of the second class not above 0.9"
