"""The average of the weights: what it is, that training does not see it, and that everything else does."""

from dataclasses import replace
from unittest import mock

import pytest
import torch

from contrex.cli import main
from contrex.data import image_set
from contrex.evaluation import validate, validation_groups
from contrex.models import load_classifier
from contrex.models.load import read_state_dict
from contrex.settings import SupCon
from contrex.training import load_trained, loop, read_log, train
from contrex.training.averaging import Averages
from contrex.training.checkpoint import Checkpoints
from training.runs import quiet, stopped_and_resumed, tiny

DECAY = 0.8


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run, what it returned, and the weights after each of its steps."""
    folder, seen = tmp_path_factory.mktemp("averaged"), []
    real = Averages.update

    def watched(self, phase, step):
        seen.append({name: p.detach().clone() for name, p in phase.step.network.named_parameters()})
        real(self, phase, step)

    with mock.patch.object(Averages, "update", watched):
        return folder, train(tiny(ema=DECAY), folder, console=quiet()), seen


def by_hand(weights):
    """The sum of the definition, with its correction."""
    num = len(weights)
    summed = sum((1 - DECAY) * DECAY ** (num - 1 - i) * value.double() for i, value in enumerate(weights))
    return summed / (1 - DECAY**num)


def test_it_is_the_corrected_average_of_the_weights_after_each_step(averaged):
    _, classifier, seen = averaged
    assert len(seen) == 6
    for name, parameter in classifier.network.named_parameters():
        expected = by_hand([weights[name] for weights in seen])
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(parameter, seen[-1][name])


def test_the_first_average_is_the_weights_after_the_first_step(tmp_path):
    recipe = tiny(epochs=1, ema=0.999, batch_size=26)
    train(recipe, tmp_path, console=quiet())
    content, (_, classifier, _) = Checkpoints(tmp_path).load(), load_trained(tmp_path)
    for name, parameter in classifier.network.named_parameters():
        assert torch.equal(parameter, content["steps"][0][f"network.{name}"])


def test_training_goes_on_from_the_trained_weights(averaged, tmp_path):
    """Validation with the averages leaves no trace: the weights are those of the run without."""
    train(tiny(), tmp_path, console=quiet())
    plain, found = (Checkpoints(folder).load()["steps"][0] for folder in (tmp_path, averaged[0]))
    assert all(torch.equal(plain[name], value) for name, value in found.items())
    plain, found = ([line["loss"] for line in read_log(f) if "loss" in line] for f in (tmp_path, averaged[0]))
    assert plain == found


def test_all_who_take_the_classifier_take_the_average(averaged):
    """Loading, validating, exporting, and what training returns; batch-norm statistics are the trained network's."""
    folder, returned, _ = averaged
    recipe, loaded, _ = load_trained(folder)
    trained = {k.removeprefix("network."): v for k, v in Checkpoints(folder).load()["steps"][0].items() if k != "queue"}
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, returned.network.state_dict()[name])
        assert torch.equal(value, trained[name]) == ("running" in name or "num_batches" in name)
    groups, cpu = validation_groups(image_set(recipe.data, "val"), recipe.data), torch.device("cpu")
    found, last = validate(loaded, groups, device=cpu), read_log(folder)[-1]
    assert (last["val_top1"], last["val_loss"]) == pytest.approx(
        (found.top1, found.loss), rel=1e-6
    )  # in another memory layout
    unaveraged = load_classifier(recipe.model, num_classes=10)
    unaveraged.network.load_state_dict(trained)
    assert last["val_loss"] != pytest.approx(validate(unaveraged, groups, device=cpu).loss, rel=1e-4)
    assert main(["export", str(folder), "--format", "safetensors"]) == 0
    exported = read_state_dict(folder / "classifier-last.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in loaded.network.state_dict().items())


def test_the_best_checkpoint_is_that_of_the_best_average(tmp_path):
    accuracies, real = iter((50.0, 40.0)), loop.validate
    seen = []

    def ranked(classifier, *arguments, **options):
        seen.append({k.removeprefix("network."): v.clone() for k, v in classifier.network.state_dict().items()})
        return real(classifier, *arguments, **options)._replace(top1=next(accuracies))

    with mock.patch.object(loop, "validate", ranked):
        train(tiny(ema=DECAY), tmp_path, console=quiet())
    for which, expected in (("best", seen[0]), ("last", seen[1])):
        found = load_trained(tmp_path, which=which)[1].network.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(
    "method", [tiny().method, pytest.param(SupCon(), marks=pytest.mark.slow)], ids=lambda method: type(method).__name__
)
def test_it_is_resumed_bit_for_bit(tmp_path, method):
    stopped_and_resumed(replace(tiny(ema=DECAY), method=method), tmp_path, steps=(4,))
    recipe, classifier, _ = load_trained(tmp_path / "straight")
    assert recipe.training.ema == DECAY
    again = train(recipe, tmp_path / "straight", resume=True, console=quiet())
    for name, value in classifier.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)


def test_each_phase_averages_what_it_moves(tmp_path):
    """The classifier's average is over its own steps: not pulled to where it stood while the encoder learned."""
    seen, real = [], Averages.update

    def watched(self, phase, step):
        seen.append((phase.name, step, phase.step.network.fc.weight.detach().clone()))
        real(self, phase, step)

    with mock.patch.object(Averages, "update", watched):
        classifier = train(replace(tiny(ema=DECAY), method=SupCon()), tmp_path, console=quiet())
    assert [step for _, step, _ in seen] == [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]
    expected = by_hand([weight for name, _, weight in seen if name == "classifier"])
    torch.testing.assert_close(classifier.network.fc.weight.detach().double(), expected, rtol=1e-5, atol=1e-7)


def test_what_is_frozen_is_no_average(tmp_path):
    network = load_classifier(tiny().model, num_classes=10).network
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    recipe = tiny(ema=DECAY, freeze=("trunk",))
    recipe = replace(recipe, model=replace(recipe.model, weights=tmp_path / "weights.pth"))
    found = train(recipe, tmp_path / "run", console=quiet()).network.state_dict()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, found[name])}
    assert moved == set(Checkpoints(tmp_path / "run").load()["averages"]) == {"fc.weight", "fc.bias"}
