import base64
import json
import math
import os
import pickle
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from contrex.data import image_set
from contrex.data.sample import Annotation, ImageSet
from contrex.data.views.evaluation import EvaluationViews
from contrex.errors import ArgumentError, DataError, UnknownNameError
from contrex.evaluation import (
    PROTOCOLS,
    Bench,
    Group,
    Protocol,
    Subject,
    check_names,
    command_line,
    configuration_of,
    evaluate,
    evaluate_each,
    validate,
    validation_groups,
    weights_sha256,
)
from contrex.evaluation.chosen import spread
from contrex.evaluation.classification import Top1
from contrex.evaluation.consistency import CGCLoss
from contrex.evaluation.groups import GROUP
from contrex.evaluation.panel import Panel
from contrex.metrics import PerSampleMetric, area_under_curve, insertion_curve
from contrex.models import Classifier
from contrex.models.convnet import ConvNet
from contrex.settings import Augmentation, Digits, Evaluation, Folder
from oracles import consistency as oracle
from sampling import crossed

ALL = ("top1", "top5", "content_heatmap", "cgc_loss", "insertion_auc", "deletion_auc")
DATA = Digits(num_train=4, num_val=4, num_test=GROUP + 5, image_size=32, digit_size=(14, 18), num_clutter=2)


def classifier(num_classes=10):
    torch.manual_seed(0)
    network = ConvNet(num_classes, widths=(4, 6), strides=(2, 2))
    network.features[1][1].running_mean.normal_()
    return Classifier(network, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def subject(data=DATA, split="test"):
    return Subject("a run", classifier(), image_set(data, split), data)


def options(*metrics, **others):
    return Evaluation(metrics=metrics or ALL, split="test", gallery=3, num_bootstrap=50, device="cpu", **others)


@pytest.fixture(scope="module")
def run():
    return evaluate(subject(), options())


def test_every_metric_counts_every_image(run):
    assert [m.name for m in run.record.metrics] == list(ALL)
    for metric in run.record.metrics:
        assert metric.num_counted + metric.num_skipped == len(DATA_IMAGES)
        assert metric.low <= metric.value <= metric.high
    assert run.record.metric("cgc_loss").num_skipped == 5
    assert run.record.metric("content_heatmap").protocol["explained_class"] == "label"


DATA_IMAGES = range(DATA.num_test)


def test_rows_average_to_the_metrics(run):
    assert run.samples.paths == [subject().images[i].path for i in DATA_IMAGES]
    for metric in run.record.metrics:
        column = run.samples.values[metric.name]
        assert column.dtype == np.float64
        assert np.isfinite(column).sum() == metric.num_counted
        assert np.nanmean(column) == pytest.approx(metric.value, rel=1e-12)


def test_values_are_those_of_a_plain_loop(run):
    """Accuracy, content heatmap and CGC loss by an independent few lines each."""
    images, network = subject().images, classifier().network.eval()
    x = torch.stack([torch.from_numpy(np.array(images[i].image)).permute(2, 0, 1) for i in DATA_IMAGES]) / 255 * 4 - 2
    labels = torch.tensor([images[i].label for i in DATA_IMAGES])
    with torch.no_grad():
        activation = network.features(x)
        logits = network.fc(activation.mean((2, 3)))
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert run.record.metric("top1").value == pytest.approx(100 * accuracy)
    maps = torch.einsum("nc,nchw->nhw", network.fc.weight[labels], activation).detach().relu()
    large = F.interpolate(maps[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    shares = []
    for i in DATA_IMAGES:
        ((x0, y0, x1, y1),) = images[i].boxes.astype(int)
        if large[i].sum() > 0:
            shares.append(100 * (large[i, y0:y1, x0:x1].sum() / large[i].sum()).item())
    assert run.record.metric("content_heatmap").num_counted == len(shares)
    assert run.record.metric("content_heatmap").value == pytest.approx(np.mean(shares), rel=1e-4)


def test_cgc_loss_is_the_papers_on_batches_of_32(run):
    bench = Bench(subject(), options())
    views = EvaluationViews(subject().images, (32, 32), whole_side=32, needs_whole=False, gallery=())
    group = [views[i] for i in range(GROUP)]
    x = bench.normalise(torch.stack([v.square for v in group]))
    crops = [CGCLoss(bench).crop(v) for v in group]
    boxes = [(*tuple(int(side[0]) for side in (c.top, c.left, c.height, c.width)), bool(c.flip[0])) for c in crops]
    moved = torch.stack([oracle.cropped(c, *box) for c, box in zip(x[:, 0], boxes, strict=True)])
    assert moved.shape == (GROUP, 32, 32)
    plain = bench.explain(x, None, group)
    every_channel = torch.stack(
        [torch.stack([oracle.cropped(c, *box) for c in image]) for image, box in zip(x, boxes, strict=True)]
    )
    after = bench.explain(every_channel, plain.target, group)
    expected = oracle.cgc_losses(
        plain.heatmap.double(),
        after.heatmap.double(),
        boxes,
        size=(32, 32),
        temperature=0.5,
        variant="paper",
    )
    assert run.record.metric("cgc_loss").value == pytest.approx(expected.mean().item(), rel=1e-4)


def test_chunks_and_metric_subsets_change_nothing(run):
    for metrics, batch_size in ((ALL, 3), (("content_heatmap",), None), (("top1",), 64)):
        again = evaluate(subject(), options(*metrics, batch_size=batch_size))
        for metric in again.record.metrics:
            assert metric.value == pytest.approx(run.record.metric(metric.name).value, rel=1e-5)


def test_gallery_is_the_same_for_every_network(run):
    other = subject()
    torch.nn.init.normal_(other.classifier.network.fc.weight)
    again = evaluate(other, options("content_heatmap"))
    assert again.gallery.paths == run.gallery.paths
    assert len(run.gallery.paths) == 3
    assert run.gallery.heatmaps[0].shape == (8, 8)
    np.testing.assert_array_equal(run.gallery.images[0], np.asarray(subject().images[0].image))
    np.testing.assert_allclose(run.gallery.boxes[0], subject().images[0].boxes)


def test_each_picture_can_be_asked(run):
    """The maps of classes that the explorer gets, within a thousandth: that of the label is the one that is shown."""
    for place, label in enumerate(run.gallery.labels):
        kept = json.loads(run.gallery.answers[place])
        assert (kept["version"], kept["task"], kept["scale"]) == (1, "multiclass", 1.0)
        (table,) = kept["answer"]["tables"]
        factors = np.frombuffer(base64.b64decode(table["factors"]), "<f4")
        maps = np.frombuffer(base64.b64decode(table["values"]), "<i2").reshape(-1, *table["shape"])
        classes = table["classes"] or list(range(len(run.record.classes)))
        at = classes.index(label)
        expected = run.gallery.heatmaps[place]
        assert np.abs(maps[at] * factors[at] - expected).max() <= 1e-3 * np.abs(expected).max()
        if place in run.gallery.predicted_heatmaps:
            at, expected = classes.index(run.gallery.predictions[place]), run.gallery.predicted_heatmaps[place]
            assert np.abs(maps[at] * factors[at] - expected).max() <= 1e-3 * np.abs(expected).max()


def test_the_gallery_keeps_what_it_shows():
    """Pictures, boxes, heatmaps and what the explorer needs; no squares, no whole images, no masks."""
    panel = Panel(subject(), options("content_heatmap"))
    views = EvaluationViews(subject().images, (32, 32), whole_side=448, needs_whole=True, gallery=(0, 2))
    panel.judge(panel.group([views[index] for index in range(3)]))
    assert sorted(panel._shown) == [0, 2]
    shown = sum(
        array.nbytes
        for one in panel._shown.values()
        for array in (one.picture.pixels, one.picture.boxes, one.heatmap, one.predicted)
        if array is not None
    )
    shown += sum(len(one.answer) for one in panel._shown.values())
    assert shown < len(pickle.dumps(panel._shown)) < shown + 2000


def test_progress_limit_and_workers():
    seen = []
    run = evaluate(subject(), options("top1", limit=9), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(9, 9)]
    assert run.record.metric("top1").num_counted == 9


@pytest.mark.parametrize("num", [3, 10, 24, 37, 59])
def test_a_limit_is_spread_over_the_classes(num):
    labels = [0] * 20 + [2] * 3 + [1] * 30 + [7] * 7
    found = spread(labels, num)
    assert found == sorted(set(found))
    assert len(found) == num
    counts = {label: sum(labels[place] == label for place in found) for label in set(labels)}
    highest = max(counts.values())
    assert all(highest - count <= 1 or count == labels.count(label) for label, count in counts.items())
    first = [place for place in found if labels[place] == 1]
    assert np.ptp(np.diff(first)) <= 1 if len(first) > 2 else True  # evenly spaced


def test_a_record_says_which_images_a_limit_chose(run):
    found = {by: evaluate(subject(), options("top1", limit=9, limit_by=by)) for by in ("class", "order")}
    whole = run.samples
    places = {by: [whole.paths.index(path) for path in one.samples.paths] for by, one in found.items()}
    assert places == {"class": spread(whole.labels.tolist(), 9), "order": list(range(9))}
    assert found["class"].record.dataset["chosen"].startswith("9 of ")
    assert found["class"].record.dataset["chosen"].endswith(" images, spread evenly over the classes")
    assert found["order"].record.dataset["chosen"].endswith(" images, the first ones")
    assert found["class"].record.configuration["evaluation"]["limit_by"] == "class"
    assert "chosen" not in run.record.dataset
    assert options("top1", limit=9).limit_by == "class"
    assert options("top1").limit_by is None
    with pytest.raises(ArgumentError, match=r"`evaluation.limit_by` 'order' means nothing without a limit: give --lim"):
        options("top1", limit_by="order")


def test_contrast_and_explainer_are_not_ignored(run):
    for change in ({"contrast": "weighted"}, {"explainer": "gradient"}, {"layer": "features.0"}):
        again = evaluate(subject(), options("content_heatmap", **change))
        assert again.record.metric("content_heatmap").value != run.record.metric("content_heatmap").value


def test_evaluating_leaves_the_mode_of_a_training_network():
    s = subject()
    s.classifier.network.train()
    found = validate(s.classifier, validation_groups(s.images, DATA), device=torch.device("cpu"))
    assert s.classifier.network.training
    assert found.top1 == pytest.approx(evaluate(s, options("top1")).record.metric("top1").value)
    assert s.classifier.network.training


# --- real folders: boxes follow every resize ------------------------------------------------------------------------


def bright_spot(tmp_path, size, box):
    """A picture of (W, H) that is bright inside `box`, the box in boxes.csv, and a grey one of another class."""
    array = np.zeros((size[1], size[0], 3), np.uint8)
    x0, y0, x1, y1 = box
    array[y0:y1, x0:x1] = 255
    for name, pixels in (("bright", array), ("grey", np.full_like(array, 99)), ("none", np.zeros_like(array))):
        folder = tmp_path / "test" / name
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "a.png")
    (tmp_path / "boxes.csv").write_text(f"path,xmin,ymin,xmax,ymax\ntest/bright/a.png,{x0},{y0},{x1},{y1}\n")
    return Folder(tmp_path, image_size=64, resize=72)


class Brightness(torch.nn.Module):
    """One class that likes light, one that does not; its maps are the picture."""

    def __init__(self):
        super().__init__()
        self.cells = torch.nn.Conv2d(3, 2, 1, bias=False)
        self.fc = torch.nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.cells.weight.fill_(1 / 3)
            self.fc.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]))

    def forward(self, x):
        return self.fc(self.cells(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("protocol", "size"), crossed(["native", "published", "square"], [(200, 120), (90, 150)], one_in=2)
)
def test_boxes_follow_the_resize_of_whole_images(tmp_path, size, protocol):
    data = bright_spot(tmp_path, size, (20, 30, 60, 90))
    images = image_set(data, "test")
    bright = Subject("bright", Classifier(Brightness(), (0.0,) * 3, (1.0,) * 3), images, data)
    run = evaluate(bright, options("content_heatmap", content_heatmap_protocol=protocol))
    assert run.record.metric("content_heatmap").value > 90
    assert run.record.metric("content_heatmap").num_counted == 1
    shown = run.gallery.boxes[0][0]
    picture = run.gallery.images[0]
    x0, y0, x1, y1 = shown.round().astype(int)
    assert picture[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].min() > 200
    assert picture[: max(y0 - 2, 0)].max(initial=0) < 60


def test_settings_ask_for_metrics_that_exist():
    assert set(Evaluation().metrics) <= set(PROTOCOLS)


def test_refuses():
    with pytest.raises(
        UnknownNameError, match=r"`evaluation.metrics` must be one of 25 names; got 'top2'. Near it: top5, top1"
    ):
        evaluate(subject(), options("top2"))
    with pytest.raises(UnknownNameError, match="`explainer` must be one of"):
        evaluate(subject(), options("top1", explainer="grad"))
    with pytest.raises(ArgumentError, match="`layer` 'features' means nothing to gradient"):
        evaluate(subject(), options("top1", explainer="gradient", layer="features"))
    few = replace(subject(), classifier=classifier(num_classes=4))
    message = (
        r"digits/test has 10 classes, the classifier 4, .* labels.csv .* classes.txt with its 4 names, or evaluate"
    )
    with pytest.raises(DataError, match=message):
        evaluate(few, options("top1"))
    with pytest.raises(DataError, match="has no images to evaluate"):
        evaluate(subject(replace(DATA, num_test=0)), options("top1"))


@pytest.mark.parametrize("num_classes", [7, 1000])
def test_positions_of_folders_are_not_read_as_classes_of_another_classifier(tmp_path, num_classes):
    """Three folders are labelled 0, 1, 2, which are classes of any classifier of more."""
    data = bright_spot(tmp_path, (64, 64), (20, 30, 60, 62))
    other = Subject("other", classifier(num_classes), image_set(data, "test"), data)
    with pytest.raises(DataError, match=f"/test has 3 classes, the classifier {num_classes}, so its labels"):
        evaluate(other, options("content_heatmap"))


def test_a_metric_that_needs_more_classes_is_refused():
    message = "`evaluation.metrics` has top5, which needs at least 5 classes; there are 4: leave it out"
    with pytest.raises(ArgumentError, match=message):
        check_names(options("top1", "top5"), 4)
    check_names(options("top1", "top5"), 5)
    check_names(options("top1"), 2)
    check_names(options("top1", "top5"))


# --- several explainers ---------------------------------------------------------------------------------------------

EACH = ("grad_cam", "rise(num_masks=8, seed=1)", "lrp(rules='epsilon')")
MEASURED = ("top1", "calibration", "fgsm", "gradient_sign", "content_heatmap", "relative_probability", "embedding")


class Wavering(torch.nn.Module):
    """Logits whose last bits depend on whether gradients are recorded, as those of torch's fused attention do."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        logits = self.network(x)
        return logits * (1 + 1e-6) if torch.is_grad_enabled() else logits


@pytest.mark.parametrize("wavers", [pytest.param(False, marks=pytest.mark.slow), True])
def test_each_explainer_has_the_numbers_that_it_has_alone_to_the_last_bit(wavers):
    one = subject()
    if wavers:
        one = replace(one, classifier=replace(one.classifier, network=Wavering(one.classifier.network)))
    metrics, limit = (("top1", "calibration", "content_heatmap"), GROUP + 2) if wavers else (MEASURED, 6)
    asked = options(*metrics, limit=limit)
    found = evaluate_each(one, replace(asked, explainers=EACH))
    for each, text in zip(found, EACH, strict=True):
        alone = evaluate(one, replace(asked, explainer=text))
        assert each.record.metrics == alone.record.metrics
        assert each.record.profiles == alone.record.profiles
        assert each.record.scatters == alone.record.scatters
        assert each.record.configuration == alone.record.configuration
        assert each.samples == alone.samples
        for kept, expected in zip(each.gallery.heatmaps, alone.gallery.heatmaps, strict=True):
            np.testing.assert_array_equal(kept, expected)
    values = [each.record.metric("content_heatmap").value for each in found]
    assert len(set(values)) == len(EACH)


def test_images_are_read_and_the_classifier_is_judged_once(monkeypatch):
    judged, read = [], []
    real, view = Top1.judge, EvaluationViews.__getitem__
    monkeypatch.setattr(Top1, "judge", lambda self, group: (judged.append(len(group)), real(self, group))[1])
    monkeypatch.setattr(EvaluationViews, "__getitem__", lambda self, i: (read.append(i), view(self, i))[1])
    evaluate_each(subject(), options("top1", "content_heatmap", explainers=EACH))
    assert sum(judged) == len(read) == len(DATA_IMAGES)


def test_a_record_says_which_options_the_explainer_had():
    found = evaluate(subject(), options("content_heatmap", explainer="rise( num_masks = 8 )", limit=4))
    told = found.record.metric("content_heatmap").protocol
    assert told["explainer"] == found.record.configuration["evaluation"]["explainer"] == "rise(num_masks=8)"
    assert told["explainer_options"] == "num_masks=8, cells=7, keep=0.5, seed=0, batch_size=None"
    plain = evaluate(subject(), options("content_heatmap", limit=4)).record.metric("content_heatmap").protocol
    assert "explainer_options" not in plain


def test_one_record_is_not_asked_of_several_explainers():
    with pytest.raises(ArgumentError, match=r"`evaluation.explainers` names 3 explainers, .* call evaluate_each"):
        evaluate(subject(), options("top1", explainers=EACH))
    with pytest.raises(ArgumentError, match=r"`evaluation.explainers` must be different explainers"):
        options("top1", explainers=("cam", "cam()"))
    with pytest.raises(ArgumentError, match="`num_masks` must be at least 1, got 0"):
        check_names(options("top1", explainers=("cam", "rise(num_masks=0)")))
    with pytest.raises(ArgumentError, match="`layer` 'features' means nothing to rise"):
        check_names(options("top1", explainers=("cam", "rise(num_masks=8)"), layer="features"))


# --- a metric is its file and one line ------------------------------------------------------------------------------


class MapMaximum(PerSampleMetric):
    name, title, higher_is_better = "map_maximum", "Maximum", True

    def update(self, heatmaps):
        self.append(heatmaps.flatten(1).amax(1))


class MaximumOfWhole(Protocol):
    name, title = "mine", "Mine"
    needs_whole = True

    def __init__(self, bench):
        super().__init__(bench)
        self.metrics = [MapMaximum()]

    def judge(self, group):
        for same in group.wholes:
            self.metrics[0].update(same.heatmaps)
        return [views.index for same in group.wholes for views in same.views]


class Top3(Top1):
    name = "mine"
    k = 3


@pytest.mark.parametrize(("protocol", "column"), [(MaximumOfWhole, "map_maximum"), (Top3, "top3")])
def test_a_new_protocol_is_shown_every_image(monkeypatch, protocol, column):
    monkeypatch.setitem(PROTOCOLS, "mine", protocol)
    found = evaluate(subject(), options("mine"))
    assert found.record.metric(column).num_counted == len(DATA_IMAGES)
    assert found.record.metric(column).family.name == protocol.name
    assert np.isfinite(found.samples.values[column]).all()


def test_values_keep_their_images_when_shapes_are_mixed(tmp_path):
    """Images of one shape are judged together, so values come in another order than the images."""
    for position, (name, size) in enumerate([("a", (64, 64)), ("b", (96, 64)), ("c", (64, 64))]):
        folder = tmp_path / "test" / name
        folder.mkdir(parents=True)
        Image.new("RGB", size, (80 * position,) * 3).save(folder / "x.png")
    data = Folder(tmp_path, image_size=64, resize=64)
    PROTOCOLS["mine"] = MaximumOfWhole
    try:
        bright = Subject("bright", Classifier(Brightness(), (0.0,) * 3, (1.0,) * 3), image_set(data, "test"), data)
        found = evaluate(bright, options("mine"))
    finally:
        del PROTOCOLS["mine"]
    names = [path.rpartition("/")[0][-1] for path in found.samples.paths]
    values = dict(zip(names, found.samples.values["map_maximum"], strict=True))
    assert values["a"] == 0
    assert values["b"] * 64 * 96 == pytest.approx(-80 / 255, rel=1e-3)
    assert values["c"] * 64 * 64 == pytest.approx(-160 / 255, rel=1e-3)


def test_curves_are_kept(run):
    (insertion, deletion) = run.record.profiles
    assert (insertion.name, deletion.name) == ("insertion_auc", "deletion_auc")
    ((name, points),) = insertion.lines.items()
    assert name == ""
    assert [point[0] for point in points] == [0, 25, 50, 75, 100]
    probability = np.mean(run.samples.probabilities)
    assert points[-1][1] == pytest.approx(probability, rel=1e-4)
    assert all(low <= mean <= high for _, mean, low, high in points)


# --- errors name the image ------------------------------------------------------------------------------------------


class Changed(ImageSet):
    """A data set in which one sample is another."""

    def __init__(self, images, index, **changes):
        self.images, self.index, self.changes = images, index, changes
        self.name, self.classes = images.name, images.classes

    def __len__(self):
        return len(self.images)

    def _of(self, name, index):
        return self.changes[name] if index == self.index and name in self.changes else getattr(self.images, name)(index)

    def image(self, index):
        return self._of("image", index)

    def annotation(self, index):
        return self._of("annotation", index)

    def label(self, index):
        return self._of("label", index)

    def also(self, index):
        return self._of("also", index)

    def path(self, index):
        return self.images.path(index)


def test_a_box_outside_its_image_names_the_path():
    images = Changed(subject().images, 7, annotation=Annotation(np.array([[40, 40, 50, 50]], np.float32)))
    with pytest.raises(ArgumentError, match=r"^digits/test/00007: `boxes\[0\]` has .* outside its image"):
        evaluate(replace(subject(), images=images), options("content_heatmap"))


def test_an_image_without_a_label_is_refused():
    with pytest.raises(DataError, match=r"^digits/test/00003 has no label, and an evaluation needs one"):
        evaluate(replace(subject(), images=Changed(subject().images, 3, label=-1)), options("top1"))


def test_of_several_right_classes_the_most_probable_one_is_the_label():
    """Whatever the network says of image 2 is right when all classes are."""
    found = {}
    for also in ((), tuple(range(1, 10))):
        images = Changed(subject().images, 2, label=0, also=also)
        found[also] = evaluate(replace(subject(), images=images), options("top1", "content_heatmap")).samples
    alone, any_class = found.values()
    assert (alone.labels[2], alone.values["top1"][2]) == (0, 0)
    assert (any_class.labels[2], any_class.values["top1"][2]) == (any_class.predictions[2], 100)
    assert alone.values["content_heatmap"][2] != any_class.values["content_heatmap"][2]


def test_an_attacked_image_is_right_while_any_of_its_classes_is_first():
    """As it is without an attack: from one breed to another nothing is lost."""
    images = Changed(subject().images, 2, label=0, also=tuple(range(1, 10)))
    found = evaluate(replace(subject(), images=images), options("fgsm", fgsm_epsilons=(0.2, 0.9)))
    assert all(values[2] == 100 for values in found.samples.values.values())


class NaNForBlack(ConvNet):
    def forward(self, x):
        return super().forward(x.where((x > -2).flatten(1).any(1)[:, None, None, None], torch.nan))


def test_a_map_that_is_not_finite_names_the_path():
    torch.manual_seed(0)
    network = NaNForBlack(10, widths=(4, 6), strides=(2, 2))
    images = Changed(subject().images, 11, image=Image.new("RGB", (32, 32)))
    broken = replace(subject(), images=images, classifier=replace(classifier(), network=network))
    for metric in ("content_heatmap", "cgc_loss"):
        with pytest.raises(ArgumentError, match=r"^digits/test/00011: "):
            evaluate(broken, options(metric, batch_size=4))


# --- networks of one input size -------------------------------------------------------------------------------------


class OneSize(Brightness):
    def forward(self, x):
        assert x.shape[2:] == (64, 64), f"input {tuple(x.shape[2:])} is not 64 x 64"
        return super().forward(x)


def test_a_network_of_one_size_needs_no_whole_images_for_accuracy(tmp_path):
    data = bright_spot(tmp_path, (200, 120), (20, 30, 60, 90))
    fixed = Subject("fixed", Classifier(OneSize(), (0.0,) * 3, (1.0,) * 3), image_set(data, "test"), data)
    found = evaluate(fixed, options("top1"))
    assert found.record.metric("top1").num_counted == 3
    assert found.gallery is None
    message = r'test/bright/a.png: .* 64 x 107 pixels \(input \(64, 107\) .* `content_heatmap_protocol` to "square"'
    with pytest.raises(ArgumentError, match=message):
        evaluate(fixed, options("top1", "content_heatmap"))
    square = evaluate(fixed, options("content_heatmap", content_heatmap_protocol="square"))
    assert len(square.gallery.paths) == 3


# --- what a record says about its making ----------------------------------------------------------------------------


def test_weights_are_told_apart():
    one, other = classifier().network, classifier().network
    assert weights_sha256(one) == weights_sha256(other.to(memory_format=torch.channels_last))
    other.features[1][1].running_var[0] += 1e-6
    assert weights_sha256(one) != weights_sha256(other)
    found = configuration_of(replace(subject(), checkpoint={"name": "best", "step": 3}), options("top1"))
    assert found["checkpoint"] == {"name": "best", "step": 3, "sha256": weights_sha256(one)}
    assert found["evaluation"]["metrics"] == ["top1"]


def test_the_command_is_recorded_only_when_the_command_line_runs(monkeypatch, run):
    assert run.record.command == ""
    for program in ("/usr/bin/contrex", "/x/contrex/__main__.py"):
        monkeypatch.setattr("sys.argv", [program, "evaluate", "my runs/a", "--name", "it's"])
        assert shlex.split(command_line()) == ["contrex", "evaluate", "my runs/a", "--name", "it's"]
    monkeypatch.setattr("sys.argv", ["experiments/compare.py", "--fast"])
    assert command_line() == ""


def test_the_protocol_of_the_cgc_loss_tells_how_it_was_measured(run):
    protocol = run.record.metric("cgc_loss").protocol
    asked = Augmentation()
    assert (protocol["crop_scale"], protocol["crop_ratio"]) == (list(asked.scale), list(asked.ratio))
    assert (protocol["flip"], protocol["temperature"], protocol["seed"]) == (asked.flip, 0.5, 0)
    other = replace(subject(), augmentation=Augmentation(scale=(0.4, 1.0), flip=0.0))
    again = evaluate(other, options("cgc_loss", seed=5)).record.metric("cgc_loss").protocol
    assert {key for key in protocol if protocol[key] != again[key]} == {"crop_scale", "flip", "seed"}


def test_a_shorter_last_step_takes_its_true_place():
    """32 x 32 pixels in steps of 300: the points are at 0, 300, 600, 900 and 1024."""
    found = evaluate(subject(), options("insertion_auc", insertion_step=300, limit=5, limit_by="order"))
    bench = Bench(subject(), options("insertion_auc"))
    views = EvaluationViews(subject().images, (32, 32), whole_side=None, needs_whole=False, gallery=())
    group = Group(bench, [views[i] for i in range(5)])
    curves = insertion_curve(bench.network, group.squares, group.saliency, step=300)
    areas = area_under_curve(curves, torch.tensor([0, 300, 600, 900, 1024]) / 1024)
    metric = found.record.metric("insertion_auc")
    assert metric.value == pytest.approx(areas.mean().item(), rel=1e-5)
    assert metric.value != pytest.approx(area_under_curve(curves).mean().item(), rel=1e-5)
    assert metric.protocol["step"] == 300


# --- accuracy while training ----------------------------------------------------------------------------------------


def test_accuracy_of_nothing_is_refused():
    nothing = image_set(replace(DATA, num_test=0), "test")
    with pytest.raises(DataError, match="digits/test has no images, so there is no accuracy"):
        validation_groups(nothing, DATA)


def test_accuracy_is_read_by_workers_that_stay(monkeypatch):
    s, readers = subject(), []
    read = EvaluationViews.__getitem__

    def noted(self, position):
        readers.append(os.getpid())  # here, where this process reads
        return replace(read(self, position), path=str(os.getpid()))

    monkeypatch.setattr(EvaluationViews, "__getitem__", noted)
    first = validate(s.classifier, validation_groups(s.images, DATA), device=torch.device("cpu"))
    assert set(readers) == {os.getpid()}
    readers.clear()
    groups = validation_groups(s.images, DATA, workers=2)
    pids = []
    for _ in range(2):
        assert validate(s.classifier, groups, device=torch.device("cpu")) == first
        pids.append({views.path for group in groups for views in group})
    groups.close()
    assert readers == []
    assert pids[0] == pids[1]
    assert str(os.getpid()) not in pids[0]


def test_uniform_guessing_gives_the_uniform_cgc_loss():
    """A constant map everywhere: nothing tells the 32 apart, so the loss is log 32."""
    s = subject()
    with torch.no_grad():
        s.classifier.network.fc.weight.fill_(1.0)
        s.classifier.network.features[1][1].weight.zero_()
        s.classifier.network.features[1][1].bias.fill_(1.0)
    run = evaluate(s, options("cgc_loss"))
    assert run.record.metric("cgc_loss").value == pytest.approx(math.log(GROUP), rel=1e-4)
