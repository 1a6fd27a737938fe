"""The offset of class maps: no probability changes, no contrast, and the maps of single classes become smaller."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import contrex
from contrex.data import image_set
from contrex.data.views.batch import Batch
from contrex.data.views.training import TrainingViews
from contrex.errors import ArgumentError
from contrex.explain.named import build_explainer
from contrex.losses import cgc_loss
from contrex.methods.step import explained_layer
from contrex.metrics import spread
from contrex.models import load_classifier
from contrex.retrofit import find_offset, retrofit
from contrex.retrofit import offset as module
from contrex.retrofit import run as run_module
from contrex.retrofit.order import Order
from retrofit.test_retrofit import order  # noqa: F401 - a fixture
from training.runs import quiet

CPU = torch.device("cpu")


@pytest.fixture
def found(order):  # noqa: F811
    classifier = load_classifier(order.recipe.model)
    return classifier, find_offset(classifier, order.recipe, share=0.5, device=CPU)


def images_of(order, which="train"):  # noqa: F811
    views = TrainingViews(
        image_set(order.photos, which), resize=34, size=32, augmentation=order.recipe.augmentation, seed=0
    )
    return Batch.join([views[0, place] for place in views.order(0)]).to(CPU)


def test_no_probability_changes_and_no_map_with_a_contrast(order, found):  # noqa: F811
    classifier, offset = found
    other = offset.taken_off(classifier)
    images = classifier.normalise(images_of(order).images)
    before, after = (contrex.GradCAM(one.network)(images) for one in (classifier, other))
    fallen = before.logits - after.logits
    assert fallen.abs().min() > 0.01, "the offset does something"
    torch.testing.assert_close(fallen, fallen[:, :1].expand_as(fallen), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(before.logits.softmax(1), after.logits.softmax(1), atol=1e-5, rtol=1e-4)
    assert (before.heatmap - after.heatmap).abs().max() > 0.01 * before.heatmap.abs().max()
    for contrast in ("mean", "weighted", "max", 3):
        some = images if contrast != 3 else images[before.target != 3]
        one, two = (contrex.GradCAM(c.network)(some, contrast=contrast).heatmap for c in (classifier, other))
        torch.testing.assert_close(one, two, atol=1e-4 * float(one.abs().max()), rtol=1e-3)


def test_the_vector_and_the_loss_are_those_of_the_equations(order, found):  # noqa: F811
    classifier, offset = found
    batch, network = images_of(order), classifier.network.eval()
    explainer = build_explainer(network, "hires_cam", None)
    features = []
    hook = explained_layer(explainer, classifier.normalise(batch.images[:2])).register_forward_hook(
        lambda _, __, output: features.append(output.detach())
    )
    with torch.no_grad():
        classes = network(classifier.normalise(batch.images)).argmax(1)
        network(classifier.normalise(batch.views[0].made()))
    hook.remove()
    plain, view = features
    cells = plain.permute(0, 2, 3, 1).reshape(-1, plain.shape[1]).double().numpy()
    squares = cells.T @ cells / len(cells)
    ridge = module.RIDGE * squares.diagonal().mean() * np.eye(len(squares))
    even = np.linalg.solve(squares + ridge, cells.mean(0))
    weight = network.fc.weight.detach()[classes]
    evidence = float(torch.einsum("nc,nchw->nhw", weight, plain).mean())
    vector = 0.5 * evidence / float((cells @ even).mean()) * even
    np.testing.assert_allclose(offset.vector.numpy(), vector, rtol=2e-3, atol=1e-5)
    for taken, loss in zip((0.0, 1.0), offset.consistency, strict=True):
        maps = [
            torch.einsum("nc,nchw->nhw", weight - taken * torch.from_numpy(vector).float(), one)
            for one in (plain, view)
        ]
        expected = cgc_loss(*maps, batch.views[0].crop, size=32)
        assert loss == pytest.approx(float(expected), rel=1e-3)


def test_it_is_looked_for_where_the_loss_falls_and_maps_are_left(order):  # noqa: F811
    classifier = load_classifier(order.recipe.model)
    best = find_offset(classifier, order.recipe, share=None, device=CPU)
    others = [find_offset(classifier, order.recipe, share=share, device=CPU) for share in (0.0, 0.1, 0.5, 1.0)]
    fall = best.consistency[0] - best.consistency[1]
    assert fall > 0
    images = classifier.normalise(images_of(order).images)

    def leaves_maps(offset):
        maps = contrex.GradCAM(offset.taken_off(classifier).network)(images).heatmap
        return float((maps.amax((1, 2)) <= 0).float().mean()) <= module.EMPTY

    assert leaves_maps(best)
    others = [other for other in others if leaves_maps(other)]
    assert len(others) >= 2
    assert all(fall >= module.GAIN * (best.consistency[0] - other.consistency[1]) - 1e-6 for other in others)
    assert best.share == pytest.approx(0.05 * round(best.share / 0.05)), "one of those tried"
    assert best.consistency[0] == pytest.approx(others[0].consistency[1])
    anyhow = find_offset(classifier, order.recipe, share=40.0, device=CPU)
    maps = contrex.GradCAM(anyhow.taken_off(classifier).network)(classifier.normalise(images_of(order).images))
    assert (maps.heatmap.amax((1, 2)) <= 0).any(), "an offset that large leaves nothing of some maps"
    assert math.isfinite(anyhow.consistency[1]), "it was asked for, and its loss is told as any"


def test_maps_become_smaller(order, found):  # noqa: F811
    classifier, offset = found
    images = classifier.normalise(images_of(order).images)
    before, after = (contrex.GradCAM(one.network)(images) for one in (classifier, offset.taken_off(classifier)))
    assert spread(after.heatmap).nanmean() < spread(before.heatmap).nanmean()


class Flat(nn.Sequential):
    """A network whose linear layer sees each cell for itself."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 10))


def test_other_networks_have_none(order, tmp_path):  # noqa: F811
    classifier = load_classifier(order.recipe.model)
    with pytest.raises(ArgumentError, match="averages its last feature map"):
        find_offset(replace(classifier, network=Flat()), order.recipe, share=None, device=CPU)
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(ArgumentError, match="one logit"):
        find_offset(replace(classifier, network=one), order.recipe, share=None, device=CPU)
    with pytest.raises(ArgumentError, match=r"`offset`.*-1"):
        Order(order.recipe, offset=-1.0).check()


def test_a_retrofit_ends_with_it_and_says_what_the_training_does_alone(order, tmp_path):  # noqa: F811
    done = retrofit(replace(order, offset=0.5), tmp_path / "run", console=quiet())
    assert [run.record.name for run in done.kept_out] == ["before", "trained", "after"]
    values = {run.record.name: {one.name: one.value for one in run.record.metrics} for run in done.kept_out}
    assert values["after"]["agreement"] == values["trained"]["agreement"]
    assert values["after"]["spread"] < values["trained"]["spread"]
    plain, after = (torch.load(tmp_path / "run" / f"{name}.pth", weights_only=True) for name in ("trained", "weights"))
    assert done.weights == tmp_path / "run" / "weights.pth"
    assert [name for name in plain if not torch.equal(plain[name], after[name])] == ["fc.weight"]
    taken = plain["fc.weight"] - after["fc.weight"]
    torch.testing.assert_close(taken, taken[:1].expand_as(taken), rtol=0, atol=1e-4)
    without = retrofit(order, tmp_path / "run", console=quiet(), resume=True)
    assert [run.record.name for run in without.kept_out] == ["before", "after"]
    found = torch.load(without.weights, weights_only=True)
    assert all(torch.equal(found[name], plain[name]) for name in plain), "the training is the same"


def test_a_network_without_one_is_refused_before_the_training(order, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(run_module, "find_offset", refused)
    with pytest.raises(ArgumentError, match="`offset` has no place"):
        retrofit(replace(order, offset=0.5), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()
    done = retrofit(replace(order, offset=None), tmp_path / "run", console=Console())
    assert [run.record.name for run in done.kept_out] == ["before", "after"]
    assert "no offset: `offset` has no place" in capsys.readouterr().out


def test_a_network_that_loses_its_offset_in_the_training_is_not_lost(order, tmp_path, monkeypatch, capsys):  # noqa: F811
    def lost(*args, **options):
        return find_offset(*args, **options) if options["num_photos"] == module.CHUNK else refused()

    monkeypatch.setattr(run_module, "find_offset", lost)
    folder = tmp_path / "run"
    with pytest.raises(ArgumentError, match=r"no place here. The weights .*trained.pth"):
        retrofit(replace(order, offset=0.5), folder, console=quiet())
    trained = torch.load(folder / "trained.pth", weights_only=True)
    done = retrofit(replace(order, offset=None), folder, console=Console(), resume=True)
    assert "no offset: `offset` has no place" in capsys.readouterr().out
    after = torch.load(done.weights, weights_only=True)
    assert all(torch.equal(after[name], trained[name]) for name in trained)


def refused(*args, **options):
    raise ArgumentError("`offset` has no place here.")
