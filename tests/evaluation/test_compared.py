"""Protocols that need more than an image at a time: grids of images, maps by people, other networks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import contrex
from contrex.data.views.composites import in_grid
from contrex.data.views.evaluation import EvaluationViews
from contrex.data.views.squares import central_square, pixels
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import Bench, Group, Subject, check_names, evaluate
from contrex.evaluation.grid_pointing import Known, grids_of
from contrex.evaluation.subject import configuration_of
from contrex.metrics import (
    adcc,
    arcc,
    coherency,
    complexity,
    drop_magnitude,
    grid_pointing_game,
    human_alignment,
    map_similarity,
    randomized,
    road_difference,
    single_deletion,
    unit_maps,
)
from contrex.models import Classifier
from contrex.models.convnet import ConvNet
from contrex.ops import heatmap
from contrex.records import to_plain
from contrex.report import comparison_tables
from contrex.settings import Evaluation, GridPointing, Randomization, RelativeProbability, SingleDeletion
from contrex.settings import HumanMaps as People
from evaluation.test_run import DATA, classifier, subject
from sampling import sampled

NUM = 34


def options(*metrics, **more):
    more = {
        "split": "test",
        "limit": NUM,
        "limit_by": "order",
        "gallery": 0,
        "num_bootstrap": 20,
        "device": "cpu",
        **more,
    }
    return Evaluation(metrics=metrics, **more)


def group_of(num):
    views = EvaluationViews(subject().images, (32, 32), whole_side=32, needs_whole=False, gallery=())
    return Group(Bench(subject(), options("top1")), [views[index] for index in range(num)])


@pytest.fixture(scope="module")
def group():
    return group_of(NUM)


@pytest.fixture(scope="module")
def few():
    return group_of(8)


def assert_column(run, name, expected):
    found = torch.from_numpy(run.samples.values[name])
    torch.testing.assert_close(found, expected.double(), rtol=2e-4, atol=2e-5, equal_nan=True)


# --- the grid pointing game -----------------------------------------------------------------------------------------


def right_classifier():
    """One that is right about digits: its last layer is fitted to the features of the images that it is judged on."""
    torch.manual_seed(0)
    found, images = classifier(), subject().images
    squares = found.normalise(torch.stack([pixels(images[index].image) for index in range(NUM)]))
    torch.manual_seed(3)
    network = ConvNet(10, widths=(8, 20), strides=(2, 2)).eval()
    with torch.no_grad():
        features = network.features(squares).mean((2, 3))
        features = torch.cat([features, torch.ones(NUM, 1)], 1).double()
        wanted = torch.nn.functional.one_hot(torch.tensor([images.label(index) for index in range(NUM)]), 10).double()
        # a little ridge, as an exact fit is equally sure of all
        weight = torch.linalg.solve(features.T @ features + 1e-3 * torch.eye(129), 20 * features.T @ wanted).float()
        network.fc.weight.copy_(weight[:-1].T)
        network.fc.bias.copy_(weight[-1])
    return Classifier(network, found.mean, found.std)


@sampled(one_in=2)
@pytest.mark.parametrize("contrast", [None, "weighted"])
@pytest.mark.parametrize("cells", ["whole", "shrunk"])
def test_grids_are_explained_class_by_class(contrast, cells):
    who = Subject("sure", right_classifier(), subject().images, DATA)
    game = GridPointing(size=2, num_grids=3, least_confidence=0.3, cells=cells)
    asked = options("top1", "grid_pointing_game", grid_pointing=game, contrast=contrast, batch_size=4)
    run = evaluate(who, asked)
    metric = run.record.metric("grid_pointing_game_2")
    assert (metric.num_counted + metric.num_skipped, metric.protocol["num_grids"]) == (NUM, 3)
    assert metric.skip_reason.startswith("22 in no grid")
    predicted, sure = run.samples.predictions.tolist(), run.samples.probabilities.tolist()
    labels = run.samples.labels.tolist()
    known = [Known(i, y, p if y == c else 0.0) for i, (y, c, p) in enumerate(zip(labels, predicted, sure, strict=True))]
    expected = torch.full((NUM,), torch.nan).double()
    explainer = contrex.GradCAM(who.classifier.network)
    for grid in grids_of(known, game, seed=0):
        assert len({one.label for one in grid}) == 4
        assert all(one.label == predicted[one.index] and one.confidence >= 0.3 for one in grid)
        squares = [pixels(central_square(who.images.image(one.index), resize=32, size=32)) for one in grid]
        picture = in_grid(torch.stack(squares)[None])
        if cells == "shrunk":
            small = torch.nn.functional.interpolate(picture.float(), size=32, mode="bilinear", antialias=True)
            picture = small.round().to(torch.uint8)
        classes = [[one.label for one in grid]]
        found = explainer.classes(who.classifier.normalise(picture), classes=classes, contrast=contrast)
        expected[[one.index for one in grid]] = grid_pointing_game(found.heatmap)[0]
    assert_column(run, "grid_pointing_game_2", expected)
    assert metric.protocol["contrast"] == contrast


def test_the_surest_images_go_first_and_each_into_one_grid():
    known = [Known(10 * label + n, label, 0.5 + 0.1 * n) for label in range(5) for n in range(3)]
    grids = grids_of(known, GridPointing(size=2), seed=1)
    used = [one for grid in grids for one in grid]
    assert len(set(used)) == len(used) == 12
    assert all(one.confidence == 0.7 for one in grids[0])
    for label in range(5):
        own = [one.confidence for one in used if one.label == label]
        assert own == sorted(own, reverse=True)
    assert grids_of(known, GridPointing(size=2, num_grids=1), seed=1) == grids[:1]
    assert grids_of(known, GridPointing(size=2), seed=1) == grids
    assert grids_of(known, GridPointing(size=2), seed=2) != grids


def test_too_few_sure_images_are_told_in_numbers():
    known = [Known(n, n % 3, 0.9) for n in range(6)] + [Known(6, 3, 0.2), Known(7, 3, 0.0)]
    message = (
        r"grid of 2 x 2 needs images of 4 classes .* at least 0.5: of 8 images 7 are predicted rightly and 6 so "
        r"surely, of 3 classes. Take more images"
    )
    with pytest.raises(ArgumentError, match=message):
        grids_of(known, GridPointing(size=2), seed=0)
    run = evaluate(subject(), options("grid_pointing_game", "top1", limit=4))
    (metric,) = [one for one in run.record.metrics if one.name.startswith("grid_pointing_game")]
    assert (metric.num_counted, metric.num_skipped) == (0, 4)
    assert "grid_pointing_game, whose grid of 3 x 3" in metric.protocol["lacking"]
    assert run.record.metric("top1").num_counted == 4, "what was measured beside it is not lost"
    few = replace(options("grid_pointing_game"), grid_pointing=GridPointing(size=4))
    with pytest.raises(ArgumentError, match=r"grid of 4 x 4 needs 16 classes, and there are 10: take a smaller"):
        evaluate(subject(), few)
    with pytest.raises(ArgumentError, match=r"grid of 4 x 4 needs 16 classes, and there are 10: take a smaller"):
        check_names(few, 10)


class OneSize(ConvNet):
    """A network for images of 32 x 32."""

    def forward(self, images):
        """The logits."""
        assert images.shape[2:] == (32, 32), "wrong size"
        return super().forward(images)


def test_a_network_of_one_size_is_told_what_to_do():
    torch.manual_seed(0)
    network = OneSize(10, widths=(4, 6), strides=(2, 2))
    who = Subject("one size", Classifier(network, (0.5,) * 3, (0.25,) * 3), subject().images, DATA)
    bench = Bench(who, options("grid_pointing_game", grid_pointing=GridPointing(size=2)))
    protocol = contrex.evaluation.PROTOCOLS["grid_pointing_game"](bench)
    protocol._known = [Known(n, n, 0.9) for n in range(4)]
    with pytest.raises(ArgumentError, match=r'set `evaluation.grid_pointing.cells` to "shrunk"'):
        protocol.finish()


# --- ARCC and the single deletion score -----------------------------------------------------------------------------


def test_composed_scores(few):
    group, run = few, evaluate(subject(), options("arcc", arcc_fractions=(0.25, 0.5), batch_size=8, limit=8))
    explainer, maps = contrex.GradCAM(group.bench.network), unit_maps(group.explanation.heatmap, (32, 32))
    masked = group.squares * maps.nan_to_num()[:, None]
    again = explainer(masked, target=group.explanation.target)
    assert_column(run, "coherency", coherency(maps, unit_maps(again.heatmap, (32, 32))))
    before, after = (
        x.softmax(1).gather(1, group.explanation.target[:, None])[:, 0] for x in (group.logits, again.logits)
    )
    counted = ~maps.isnan().flatten(1).any(1)
    drop = drop_magnitude(before, after).where(counted, torch.nan)
    assert_column(run, "average_drop", drop)
    seeds = group.bench.seeds("road", group.indices)
    given = {"fractions": (0.25, 0.5), "seeds": seeds}
    road = road_difference(group.bench.network, group.squares, group.saliency, **given).where(counted, torch.nan)
    found = {name: torch.from_numpy(values) for name, values in run.samples.values.items()}
    torch.testing.assert_close(found["road"], road, atol=2e-3, rtol=0, equal_nan=True)
    torch.testing.assert_close(found["adcc"], adcc(found["coherency"], complexity(maps), drop), equal_nan=True)
    torch.testing.assert_close(found["arcc"], arcc(found["coherency"], complexity(maps), found["road"]), equal_nan=True)


def test_single_deletion(group):
    asked = options("single_deletion", single_deletion=SingleDeletion(grid=3, baseline="mean"))
    run = evaluate(subject(), asked)
    maps = contrex.GradCAM(group.bench.network)(group.squares, target=group.labels).heatmap
    given = {"target": group.labels, "grid": 3, "baseline": "mean"}
    saliency = heatmap.resize(maps, (32, 32))
    assert (group.labels != group.explanation.target).any()
    assert_column(run, "single_deletion", single_deletion(group.bench.network, group.squares, saliency, **given))
    metric = run.record.metric("single_deletion")
    assert metric.protocol["verdict"] == "not in domain: the network was not trained with deletions"
    assert "not trained on such images" in metric.family.meaning
    trained = replace(subject(), configuration={"method": {"deletions": 0.5, "deletion_grid": 3}})
    other_holes = evaluate(trained, replace(asked, limit=2)).record.metric("single_deletion")
    assert "verdict" in other_holes.protocol, "trained with zeros, and measured with the mean colour"
    zeros = replace(asked, limit=2, single_deletion=SingleDeletion(grid=3))
    told = evaluate(trained, zeros).record.metric("single_deletion")
    assert "verdict" not in told.protocol
    assert told.family.meaning.endswith("The network was trained on such images.")


# --- human alignment ------------------------------------------------------------------------------------------------


def test_maps_by_people_are_found_by_the_names_of_images(group, tmp_path):
    images, people = subject().images, torch.rand(2, 64, 64)
    stem = images.path(0).rpartition("/")[2].partition(".")[0]
    np.save(tmp_path / f"{stem}.npy", people[0].numpy())
    below = tmp_path.joinpath(*images.path(1).split("/")[:-1])
    below.mkdir(parents=True, exist_ok=True)
    Image.fromarray((people[1] * 255).byte().numpy()).save(below / f"{images.path(1).split('/')[-1]}.png")
    asked = options("human_alignment", human=People(tmp_path, ceiling=0.5))
    run = evaluate(subject(), asked)
    metric = run.record.metric("human_alignment")
    assert (metric.num_counted, metric.num_skipped) == (2, NUM - 2)
    small = [Image.fromarray(one.numpy()).resize((32, 32), Image.Resampling.BILINEAR) for one in people]
    human = torch.full((NUM, 32, 32), torch.nan)
    human[:2] = torch.from_numpy(np.stack([np.asarray(one) for one in small]))
    maps = contrex.GradCAM(group.bench.network)(group.squares, target=group.labels).heatmap
    expected = human_alignment(heatmap.resize(maps, (32, 32)), human)
    found = torch.from_numpy(run.samples.values["human_alignment"])
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0, equal_nan=True)
    share = torch.from_numpy(run.samples.values["human_alignment_of_ceiling"])
    torch.testing.assert_close(share, 200 * found, equal_nan=True)
    assert "one person's map has 0.5" in metric.family.meaning


def test_human_alignment_needs_maps(tmp_path):
    with pytest.raises(ArgumentError, match="human_alignment, which needs a folder with maps by people"):
        check_names(options("human_alignment"))
    with pytest.raises(DataError, match=r"must be a folder with maps; there is no folder"):
        evaluate(subject(), options("human_alignment", human=People(tmp_path / "none")))
    with pytest.raises(DataError, match=r"has no map of any image; expected NAME.npy or NAME.png"):
        evaluate(subject(), options("human_alignment", human=People(tmp_path)))


# --- repeatability and reproducibility ------------------------------------------------------------------------------


def other(seed, widths=(4, 6), num_classes=10):
    torch.manual_seed(seed)
    return Classifier(ConvNet(num_classes, widths=widths, strides=(2, 2)), (0.4,) * 3, (0.3,) * 3)


def test_other_networks_explain_the_same_class_of_the_same_images(group):
    others = {"again": other(1), "once more": other(2), "larger": other(3, widths=(4, 8))}
    run = evaluate(replace(subject(), others=others), options("repeatability", others=tuple(others)))
    assert [metric.name for metric in run.record.metrics] == [
        "repeatability_ssim", "repeatability_spearman", "reproducibility_ssim", "reproducibility_spearman",
    ]  # fmt: skip
    own, target = group.saliency, group.explanation.target
    uint8 = torch.stack([views.square for views in group.views])
    maps = {
        name: heatmap.resize(contrex.GradCAM(one.network)(one.normalise(uint8), target=target).heatmap, (32, 32))
        for name, one in others.items()
    }
    for kind in ("ssim", "spearman"):
        first, second, third = (map_similarity(own, maps[name], kind) for name in others)
        assert_column(run, f"repeatability_{kind}", (first + second) / 2)
        assert_column(run, f"reproducibility_{kind}", third)
        metric = run.record.metric(f"reproducibility_{kind}")
        chance = torch.cat([map_similarity(own[some], maps["larger"][some].roll(-1, 0), kind)
                            for some in (slice(0, 32), slice(32, 34))])  # fmt: skip
        assert metric.protocol["chance"] == pytest.approx(chance.nanmean().item(), abs=1e-4)
    assert set(metric.protocol["others"]) == set(others)
    assert comparison_tables([run, run])


def test_a_network_agrees_with_itself_and_not_with_another():
    verdicts = {}
    same_maps = classifier()
    same_maps.network.fc.bias.data += 1
    for name, one in (("itself", same_maps), ("random", other(5))):
        found = evaluate(replace(subject(), others={name: one}), options("repeatability", others=(name,)))
        metric = found.record.metric("repeatability_spearman")
        verdicts[name] = metric.protocol["verdict"]
        if name == "itself":
            assert metric.value == pytest.approx(1)
    assert verdicts["itself"] == "more alike than by chance"
    alone = evaluate(replace(subject(), others={"a": other(5)}), options("repeatability", others=("a",), limit=1))
    assert alone.record.metrics[0].protocol["verdict"] == "unknown: too few images"
    assert math.isnan(alone.record.metrics[0].protocol["chance"])


def test_the_judged_network_and_one_named_twice_are_left_out():
    """A list of all runs has the judged one, too."""
    several = {"itself": classifier(), "a": other(5), "again": other(5), "b": other(6)}
    found = evaluate(replace(subject(), others=several), options("repeatability", others=tuple(several)))
    two = {"a": other(5), "b": other(6)}
    expected = evaluate(replace(subject(), others=two), options("repeatability", others=tuple(two)))
    for kind in ("ssim", "spearman"):
        own, theirs = (run.record.metric(f"repeatability_{kind}") for run in (found, expected))
        assert own.value == theirs.value
        assert list(own.protocol["others"]) == ["a", "b"]


def test_repeatability_needs_other_networks_of_the_same_classes():
    with pytest.raises(ArgumentError, match="repeatability, which compares maps with those of other networks"):
        check_names(options("repeatability"))
    with pytest.raises(ArgumentError, match=r"`evaluation.others` a: none of `evaluation.metrics` compares maps with"):
        check_names(options("top1", others=("a",)))
    with pytest.raises(ArgumentError, match=r"has repeatability, and the subject has no `others`"):
        evaluate(subject(), options("repeatability", others=("a",)))
    with pytest.raises(ArgumentError, match=r"`evaluation.others` a has 7 logits, the network that is judged 10"):
        evaluate(replace(subject(), others={"a": other(0, num_classes=7)}), options("repeatability", others=("a",)))
    with pytest.raises(ArgumentError, match=r"`evaluation.others` a b: these are the weights that are judged, and"):
        evaluate(
            replace(subject(), others={"a": classifier(), "b": classifier()}),
            options("repeatability", others=("a", "b")),
        )
    deeper = {"a": other(0, widths=(4, 6))}
    with pytest.raises(ArgumentError, match=r"must be a module name|`layer`"):
        evaluate(replace(subject(), others=deeper), options("repeatability", others=("a",), layer="features.9"))


def test_records_say_of_new_settings_only_what_is_not_as_ever():
    plain = to_plain(options("top1"))
    assert not plain.keys() & {"grid_pointing", "human", "arcc_fractions", "single_deletion", "others", "randomization"}
    asked = to_plain(options("top1", grid_pointing=GridPointing(size=2)))
    assert asked["grid_pointing"]["size"] == 2


# --- parameter randomisation, compared in other ways ----------------------------------------------------------------


def test_randomisation_by_ssim_and_stage_by_stage(few):
    group, runs = (
        few,
        {
            order: evaluate(
                subject(),
                options("parameter_randomization", seed=5, limit=8, randomization=Randomization("ssim", order)),
            )
            for order in ("cascading", "independent")
        },
    )
    own, target = group.saliency, group.explanation.target
    for order, run in runs.items():
        values = []
        for _, network in randomized(group.bench.network, stages=("fc", "features"), seed=5, order=order):
            other = contrex.GradCAM(network)(group.squares, target=target).heatmap
            values.append(map_similarity(own, heatmap.resize(other, (32, 32)), "ssim"))
        assert len(values) == 2
        name = "randomization_ssim" if order == "cascading" else "randomization_ssim_each"
        assert_column(run, name, values[-1] if order == "cascading" else sum(values) / 2)
    found, each = (run.record.metrics[0].protocol for run in runs.values())
    assert found["verdict"] in ("changes", "flagged: it does not change")
    assert "verdict" not in each
    assert each["order"] == "independent"


class WithToken(ConvNet):
    """A network that owns a parameter itself, as transformers own positions."""

    def __init__(self):
        super().__init__(10, widths=(4, 6), strides=(2, 2))
        self.token = torch.nn.Parameter(torch.randn(1, 3, 32, 32))

    def forward(self, images):
        """The logits."""
        return super().forward(images + self.token)


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_randomisation_reaches_what_the_network_owns_itself(order):
    torch.manual_seed(0)
    judged = replace(subject(), classifier=replace(classifier(), network=WithToken()))
    run = evaluate(judged, options("parameter_randomization", limit=4, randomization=Randomization(order=order)))
    (profile,) = run.record.profiles
    (points,) = profile.lines.values()
    assert [point[0] for point in points] == [0, 1, 2, 3]
    assert profile.x_title.endswith("from the top: fc, features, the network's own parameters")


def test_a_record_says_of_each_metric_how_its_own_maps_were_made():
    """Whatever else was explained: whole images for another metric, or for the pictures of a report."""
    asked = [("insertion_auc",), ("insertion_auc", "content_heatmap", "grid_pointing_game")]
    whole = {"content_heatmap_protocol": "published", "grid_pointing": GridPointing(size=2, least_confidence=0.3)}
    judged = replace(subject(), classifier=right_classifier())
    runs = [evaluate(judged, options(*metrics, gallery=2, **whole)) for metrics in asked]
    assert [run.record.metric("insertion_auc").protocol["grid"] for run in runs] == ["8 x 8"] * 2
    assert runs[1].record.metric("content_heatmap").protocol["grid"] == "112 x 112"
    assert runs[1].record.metric("grid_pointing_game_2").protocol["grid"] == "16 x 16"


def test_a_record_says_which_other_networks_by_their_weights():
    """A name stays where a run is trained further, and its old record is not that of the new maps."""
    asked, own = options("repeatability", others=("a",)), classifier()
    first, second = (configuration_of(replace(subject(), others={"a": one}), asked) for one in (own, own))
    assert first == second
    with torch.no_grad():
        next(own.network.parameters()).add_(1)
    assert configuration_of(replace(subject(), others={"a": own}), asked)["others"] != first["others"]
    assert "others" not in configuration_of(subject(), options("top1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "published-code", "sigma": 5.0}, "sigma` 5: the protocol published-code draws it from 10 to 20"),
        (
            {"protocol": "paper", "against": "max"},
            "against` max: by the protocol paper each map keeps the pixels of its",
        ),
    ],
)
def test_what_a_protocol_does_not_read_is_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        RelativeProbability(**changes)
