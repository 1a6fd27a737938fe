import json
import os
import shlex
import signal
import threading
from dataclasses import replace

import pytest
import torch
from PIL import Image

from contrex.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    ImageError,
    InterruptedRunError,
    NonFiniteLossError,
)
from contrex.evaluation import Validation
from contrex.methods import Step, training_plan
from contrex.methods.cgc import CGCStep
from contrex.models import load_classifier
from contrex.settings import CrossEntropy, Folder, Schedule
from contrex.training import curves, load_trained, loop, preparing, read_log, saved_recipe, train
from contrex.training.checkpoint import Checkpoints
from sampling import sampled
from training.runs import quiet, stopped_and_resumed, tiny, varied


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def weights(folder):
    return Checkpoints(folder).load()["steps"][0]


def assert_same_run(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train(tiny(), folder, console=quiet())
    return folder


def fail_at(monkeypatch, step_number, act):
    """Run `act` in the forward pass of optimiser step `step_number` (from 0)."""
    forward, calls = CGCStep.forward, []

    def failing(self, batch):
        calls.append(1)
        if len(calls) == step_number + 1:
            act()
        return forward(self, batch)

    monkeypatch.setattr(CGCStep, "forward", failing)


def test_a_run_leaves_what_it_promises(straight):
    saved = json.loads((straight / "recipe.json").read_text())
    assert saved["training"]["seed"] == 3
    log = read_log(straight)
    assert [line["step"] for line in log] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert all({"loss", "cross_entropy", "consistency", "lr"} <= line.keys() for line in log if "loss" in line)
    found = curves(straight)
    assert [epoch for epoch, _ in found["val_top1"]] == [epoch for epoch, _ in found["val_loss"]] == [1.0, 2.0]
    losses = [line["loss"] for line in log if "loss" in line]
    assert found["loss"][0][1] == pytest.approx(sum(losses[:3]) / 3)
    recipe, classifier, classes = load_trained(straight)
    assert recipe == tiny()
    assert classes == tuple("0123456789")
    assert not classifier.network.training
    state = weights(straight)
    assert all(torch.equal(v, state[f"network.{k}"]) for k, v in classifier.network.state_dict().items())


def test_the_same_seed_gives_the_same_bytes(straight, tmp_path):
    torch.manual_seed(99)
    train(tiny(), tmp_path, console=quiet())
    assert_same_run(straight, tmp_path)


def test_another_seed_gives_another_run(straight, tmp_path):
    train(tiny(seed=4), tmp_path, console=quiet())
    assert not torch.equal(weights(straight)["network.fc.weight"], weights(tmp_path)["network.fc.weight"])


@pytest.mark.parametrize("step", [4, *(pytest.param(step, marks=pytest.mark.slow) for step in (0, 1, 3, 5))])
def test_a_killed_and_resumed_run_is_the_uninterrupted_one(straight, tmp_path, monkeypatch, step):
    """Killed in any step, with a checkpoint after every step: the same weights and log, bit for bit."""
    recipe = tiny(checkpoint_minutes=0.0)
    with monkeypatch.context() as patch:
        fail_at(patch, step, lambda: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(recipe, tmp_path, console=quiet())
    train(recipe, tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


def test_without_a_recent_checkpoint_steps_are_repeated_and_logged_once(straight, tmp_path, monkeypatch):
    """Checkpoints at epoch ends only: killed in step 5, the log's lines of epoch 2 are written again, not twice."""
    with monkeypatch.context() as patch:
        fail_at(patch, 5, lambda: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(tiny(), tmp_path, console=quiet())
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 3, 4, 5]
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


def test_killed_between_the_validation_and_its_checkpoint(straight, tmp_path, monkeypatch):
    """The timed checkpoint of the epoch's last batch has the step of the validation's line: it is written once."""
    save = Checkpoints.save

    def dying(self, content, *, step, best):
        if content["place"]["epoch"] == 1:
            raise Killed
        save(self, content, step=step, best=best)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dying)
        with pytest.raises(Killed):
            train(tiny(checkpoint_minutes=0.0), tmp_path, console=quiet())
    assert "val_top1" in read_log(tmp_path)[-1]
    place = Checkpoints(tmp_path).load()["place"]
    assert {**place, "best": 0} == {"epoch": 0, "phase": 0, "batch": 3, "step": 3, "best": 0, "way": 1.0, "scale": 1.0}
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


def test_resuming_a_finished_run_changes_nothing(straight, tmp_path):
    train(tiny(), tmp_path, console=quiet())
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_leaves_a_resumable_run(straight, tmp_path, monkeypatch, number, code):
    usual = signal.getsignal(number)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, lambda: os.kill(os.getpid(), number))
        with pytest.raises(
            InterruptedRunError, match=f"stopped by {number.name} after step 2; continue with:"
        ) as error:
            train(tiny(), tmp_path, console=quiet())
    assert error.value.exit_code == code
    assert signal.getsignal(number) is usual
    assert Checkpoints(tmp_path).load()["place"]["step"] == 2
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_signal_during_validation_ends_the_run_after_its_checkpoint(straight, tmp_path, monkeypatch, epoch):
    """Also after the last epoch: who runs several runs in a row must learn that it is to stop."""
    validate, calls = loop.validate, []

    def signalled(*args, **options):
        calls.append(1)
        if len(calls) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", signalled)
        with pytest.raises(InterruptedRunError, match=f"stopped by SIGTERM after step {3 * epoch}; continue") as error:
            train(tiny(), tmp_path, console=quiet())
    assert error.value.exit_code == 143
    assert Checkpoints(tmp_path).load()["place"]["epoch"] == epoch
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


def test_the_command_that_continues_is_quoted_for_a_shell(tmp_path, monkeypatch):
    fail_at(monkeypatch, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    folder = tmp_path / "two words"
    with pytest.raises(InterruptedRunError) as error:
        train(tiny(), folder, console=quiet())
    words = shlex.split(str(error.value).partition("continue with: ")[2])
    assert words == ["contrex", "train", f"{folder}/recipe.json", "--folder", str(folder), "--resume"]


def test_training_in_a_thread_leaves_signals_alone(straight, tmp_path):
    thread = threading.Thread(target=lambda: train(tiny(), tmp_path, console=quiet()))
    thread.start()
    thread.join()
    assert_same_run(straight, tmp_path)


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(straight, tmp_path):
    recipe = varied(tiny(), workers=2)
    train(recipe, tmp_path, console=quiet())
    assert_same_run(straight, tmp_path)


@pytest.mark.parametrize("where", ["worker", "device"])
def test_both_ways_of_cutting_crops_train(tmp_path, where):
    recipe = tiny(epochs=1)
    recipe = replace(recipe, augmentation=replace(recipe.augmentation, where=where))
    train(recipe, tmp_path, console=quiet())
    assert read_log(tmp_path)[-1]["step"] == 3


@sampled(one_in=2)
@pytest.mark.parametrize(
    "change",
    [
        {"training": {"precision": "bfloat16"}},
        {"optimizer": {"name": "adamw", "lr": 1e-3, "nesterov": False}},
        {"method": {"variant": "published-code"}},
        {"method": {"contrast": "weighted"}},
    ],
)
def test_options_are_not_ignored(straight, tmp_path, change):
    recipe = tiny()
    for part, values in change.items():
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **values)})
    train(recipe, tmp_path, console=quiet())
    assert not torch.equal(weights(straight)["network.fc.weight"], weights(tmp_path)["network.fc.weight"])


# --- refusing, failing ----------------------------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_overwritten(straight):
    with pytest.raises(CheckpointError, match="already holds a run: continue it with --resume"):
        train(tiny(), straight, console=quiet())


def test_another_recipe_is_not_resumed(straight):
    changed = replace(tiny(), method=CrossEntropy(), schedule=Schedule("constant"))
    with pytest.raises(CheckpointError, match=r"different in method, schedule.name, schedule.warmup_epochs"):
        train(changed, straight, resume=True, console=quiet())
    train(varied(tiny(), checkpoint_minutes=1.0), straight, resume=True, console=quiet())


@pytest.fixture
def photos(tmp_path):
    """Two classes of four pictures to train on and one to validate on."""
    root = tmp_path / "photos"
    for split, num in (("train", 4), ("val", 1)):
        for label in range(2):
            (root / split / f"class{label}").mkdir(parents=True)
            for i in range(num):
                picture = Image.new("RGB", (40, 36), (40 * i, 200 * label, 9))
                picture.save(root / split / f"class{label}" / f"{i}.png")
    return root


def on_photos(root, **training):
    """The tiny recipe on a folder: two steps an epoch."""
    recipe = tiny(**{"batch_size": 4, **training})
    return replace(recipe, data=Folder(root, image_size=32, resize=32), method=CrossEntropy())


def test_the_data_may_move(tmp_path, photos, monkeypatch):
    straight, run = tmp_path / "straight", tmp_path / "run"
    train(on_photos(photos), straight, console=quiet())
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or Validation(0.0, 1.0))
        with pytest.raises(InterruptedRunError):
            train(on_photos(photos), run, console=quiet())
    elsewhere = photos.rename(tmp_path / "moved")
    train(on_photos(elsewhere), run, resume=True, console=quiet())
    first, second = weights(straight), weights(run)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert saved_recipe(run).data.path == elsewhere


def test_a_resumed_run_needs_its_weights_file_no_more(tmp_path, photos):
    recipe = on_photos(photos)
    network = load_classifier(recipe.model, num_classes=2).network
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    recipe = replace(recipe, model=replace(recipe.model, weights=tmp_path / "weights.pth"))
    train(recipe, tmp_path / "run", console=quiet())
    (tmp_path / "weights.pth").unlink()
    train(recipe, tmp_path / "run", resume=True, console=quiet())


def test_other_images_are_not_the_same_run(tmp_path, photos):
    train(on_photos(photos), tmp_path / "run", console=quiet())
    (photos / "train" / "class0" / "3.png").unlink()
    with pytest.raises(CheckpointError, match="photos/train has 7 images, the run was started on 8"):
        train(on_photos(photos), tmp_path / "run", resume=True, console=quiet())
    for split in ("train", "val"):
        (photos / split / "class0").rename(photos / split / "class9")
    with pytest.raises(CheckpointError, match="photos/train has other classes than the run was started on"):
        train(on_photos(photos), tmp_path / "run", resume=True, console=quiet())


def test_what_would_fail_after_an_epoch_is_refused_before(tmp_path, photos):
    recipe = tiny()
    with pytest.raises(DataError, match=r"digits/val has no images, and a run is validated on them"):
        train(replace(recipe, data=replace(recipe.data, num_val=0)), tmp_path / "run", console=quiet())
    with pytest.raises(ArgumentError, match=r"`model.num_classes` is 12, digits/train has 10 classes: leave it out"):
        train(replace(recipe, model=replace(recipe.model, num_classes=12)), tmp_path / "run", console=quiet())
    named = replace(recipe.model, classes=("one", "two"))
    with pytest.raises(
        ArgumentError, match=r"`model.classes` one two ... are not the classes of digits/train, 0 1 2 3"
    ):
        train(replace(recipe, model=named), tmp_path / "run", console=quiet())
    one_class = replace(on_photos(photos), data=replace(on_photos(photos).data, classes=("class0",)))
    with pytest.raises(DataError, match=r"photos/train has 1 class, and the cross-entropy of one class is 0 whatever"):
        train(one_class, tmp_path / "run", console=quiet())
    for label in range(2):
        (photos / "val" / f"class{label}").rename(photos / "val" / f"other{label}")
    with pytest.raises(DataError, match=r"photos/val has other classes than photos/train"):
        train(on_photos(photos), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_one_sentence(tmp_path, photos, workers):
    (photos / "train" / "class0" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"^cannot read image '.*/2\.png': .*: --data\.on-bad-image skip\.$") as error:
        train(on_photos(photos, workers=workers), tmp_path / "run", console=quiet())
    assert "\n" not in str(error.value)


def test_skipped_images_are_counted_and_listed(tmp_path, photos):
    (photos / "train" / "class0" / "2.png").write_bytes(b"no picture")
    (photos / "train" / "class1" / "0.png").write_bytes(b"")
    recipe = on_photos(photos, epochs=1)
    console = quiet()
    train(replace(recipe, data=replace(recipe.data, on_bad_image="skip")), tmp_path / "run", console=console)
    listed = json.loads((tmp_path / "run" / "skipped_images.json").read_text())
    assert list(listed) == ["photos/train"]
    assert ["2.png" in listed["photos/train"][0], "0.png" in listed["photos/train"][1]] == [True, True]
    said = console.file.getvalue()
    assert (
        f"unreadable images left out of photos/train: 2, listed in {tmp_path / 'run' / 'skipped_images.json'}" in said
    )
    assert "0.png': the file is empty" in said


def test_more_images_in_a_batch_than_in_the_set(tmp_path):
    with pytest.raises(ArgumentError, match=r"`training.batch_size` 64 is larger than the training set, 26"):
        train(tiny(batch_size=64), tmp_path, console=quiet())


def test_a_nan_loss_stops_before_the_weights(tmp_path, monkeypatch):
    forward, calls = CGCStep.forward, []

    def poisoned(self, batch):
        output = forward(self, batch)
        calls.append(batch.paths)
        return replace(output, loss=output.loss * torch.nan) if len(calls) == 5 else output

    monkeypatch.setattr(CGCStep, "forward", poisoned)
    with pytest.raises(NonFiniteLossError, match="at step 4 of epoch 1; no single image does it") as error:
        train(tiny(checkpoint_minutes=0.0), tmp_path, console=quiet())
    assert error.value.exit_code == 3
    saved = json.loads((tmp_path / "nonfinite.json").read_text())
    assert saved["paths"] == list(calls[4])
    assert all(value.isfinite().all() for value in weights(tmp_path).values())
    assert "The last checkpoint is from before it" in str(error.value)


def test_a_nan_gradient_of_a_finite_loss_stops_before_the_weights(tmp_path, monkeypatch):
    forward, seen = CGCStep.forward, []

    def poisoned(self, batch):
        output = forward(self, batch)
        seen.append(self.network.fc.weight.detach().clone())
        zero = self.network.fc.weight.sum() * 0
        return replace(output, loss=output.loss + 0 * zero.sqrt()) if len(seen) == 2 else output

    monkeypatch.setattr(CGCStep, "forward", poisoned)
    trained = []
    monkeypatch.setattr(preparing, "training_plan", lambda *args: trained.append(training_plan(*args)) or trained[0])
    with pytest.raises(NonFiniteLossError, match=r"the gradient became NaN .* at step 1 .* no single") as error:
        train(tiny(), tmp_path, console=quiet())
    assert torch.equal(trained[0].phases[0].step.network.fc.weight, seen[1])
    assert "There is no checkpoint yet." in str(error.value)
    assert [line["step"] for line in read_log(tmp_path)] == [1]


def test_diverged_weights_are_not_blamed_on_images(tmp_path, monkeypatch):
    def poison():
        raise_nan(classifiers[0].network)

    classifiers, load = [], preparing.load_classifier
    monkeypatch.setattr(
        preparing, "load_classifier", lambda *a, **k: classifiers.append(load(*a, **k)) or classifiers[0]
    )
    fail_at(monkeypatch, 1, poison)
    with pytest.raises(NonFiniteLossError, match=r"every image of the batch .* weights have diverged: lower `optim"):
        train(tiny(), tmp_path, console=quiet())


def test_nan_in_the_validation_is_a_divergence(tmp_path, monkeypatch):
    validate = loop.validate

    def poisoned(classifier, *args, **options):
        raise_nan(classifier.network.network)
        return validate(classifier, *args, **options)

    monkeypatch.setattr(loop, "validate", poisoned)
    message = r"validation logits became NaN after step 3, at the end of epoch 0: the weights have diverged; lower"
    with pytest.raises(NonFiniteLossError, match=message) as error:
        train(tiny(), tmp_path, console=quiet())
    assert error.value.exit_code == 3
    assert not Checkpoints(tmp_path).exists()


def raise_nan(network):
    with torch.no_grad():
        network.fc.weight.fill_(torch.nan)


def test_images_that_alone_give_nan_are_named(tmp_path, monkeypatch):
    normalise, poison = Step.__init__, []

    def sabotage(self, classifier):
        normalise(self, classifier)
        network = classifier.network
        forward = network.forward

        def broken(images):
            logits = forward(images)
            bad = images.flatten(1).mean(1) > images.flatten(1).mean(1).amin() + 1e-6
            poison.append(int((~bad).sum()))
            return torch.where(bad[:, None], logits, torch.nan)

        network.forward = broken

    monkeypatch.setattr(Step, "__init__", sabotage)
    recipe = replace(tiny(), method=CrossEntropy())
    with pytest.raises(NonFiniteLossError, match="these images alone give non-finite logits: digits/train/"):
        train(recipe, tmp_path, console=quiet())
    assert len(json.loads((tmp_path / "nonfinite.json").read_text())["paths"]) == 1
    assert poison


def test_the_consistency_begins_after_its_share_of_the_epochs_and_is_resumed_there(tmp_path):
    recipe = tiny()
    recipe = replace(recipe, method=replace(recipe.method, consistency_after=0.5))
    stopped_and_resumed(recipe, tmp_path, steps=[4])
    steps = [line for line in read_log(tmp_path / "straight") if "loss" in line]
    assert [(line["epoch"], "consistency" in line) for line in steps] == [(0, False)] * 3 + [(1, True)] * 3
