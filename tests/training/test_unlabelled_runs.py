"""Runs with images without labels: resumed anywhere, on any number of workers, and what is refused."""

import json
from dataclasses import replace
from unittest import mock

import pytest
import torch
from PIL import Image

from contrex.errors import ArgumentError, CheckpointError, NonFiniteLossError
from contrex.experiment import evaluate_run
from contrex.methods import METHODS
from contrex.methods.cgc import CGCStep
from contrex.settings import CGCNoNegatives, Labelled, Model
from contrex.training import compiling, load_trained, read_log, train
from contrex.training.checkpoint import Checkpoints
from training.runs import assert_same, quiet, stopped_and_resumed, tiny, varied

SEMI = replace(tiny(batch_size=4), labelled=Labelled(per_class=1, rest="unlabelled", unlabelled_batch_size=6))
"""9 labelled digits, two steps an epoch; 17 others, two batches of 6 a pass; a queue."""


def seen_in(recipe, folder):
    """The paths of each step: labelled, unlabelled."""
    seen, forward = [], CGCStep.forward

    def watched(self, batch):
        seen.append((list(batch.paths), list(batch.unlabelled.paths), batch.unlabelled.labels.tolist()))
        return forward(self, batch)

    with mock.patch.object(CGCStep, "forward", watched):
        train(recipe, folder, console=quiet())
    return seen


def test_an_epoch_is_a_pass_over_the_labelled_images(tmp_path):
    seen = seen_in(varied(SEMI, epochs=3), tmp_path)
    drawn = set((tmp_path / "labelled.txt").read_text().split())
    assert len(seen) == 6
    assert all(set(labelled) <= drawn and len(labelled) == 4 for labelled, _, _ in seen)
    assert all(not set(unlabelled) & drawn and len(set(unlabelled)) == 6 for _, unlabelled, _ in seen)
    assert all(labels == [-1] * 6 for _, _, labels in seen)
    for one, two in ((0, 1), (2, 3), (4, 5)):
        assert len({*seen[one][1], *seen[two][1]}) == 12, "a pass has each once"
    log = [line for line in read_log(tmp_path) if "loss" in line]
    for line in log:
        assert line["loss"] == pytest.approx(line["cross_entropy"] + 0.5 * line["consistency"], rel=1e-6)
    assert Checkpoints(tmp_path).load()["num_unlabelled"] == 17


def test_a_run_is_resumed_in_the_middle_of_an_epoch_bit_for_bit(tmp_path):
    recipe = varied(SEMI, epochs=3, ema=0.9)
    stopped_and_resumed(replace(recipe, optimizer=replace(recipe.optimizer, head_lr=0.2)), tmp_path, steps=(3,))


def test_without_negatives_parts_of_a_step_add_up(tmp_path):
    """Batch norm in eval mode, whose statistics would be those of the parts."""
    recipe = replace(SEMI, method=CGCNoNegatives(resolution=32))
    for name, accumulate in (("whole", 1), ("parts", 2)):
        train(varied(recipe, epochs=1, accumulate=accumulate, freeze=("features",)), tmp_path / name, console=quiet())
    whole, parts = (read_log(tmp_path / name) for name in ("whole", "parts"))
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile looks at its inputs
def test_a_compiled_run_is_the_run_that_is_not(tmp_path, monkeypatch):
    """Two batch sizes through one network."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    recipe = replace(SEMI, model=Model("torchvision:resnet18", mean=(0.5,), std=(0.25,)))
    plain, found = (
        train(varied(recipe, epochs=1, compile=compiled), tmp_path / str(compiled), console=quiet()).network
        for compiled in (False, True)
    )
    for one, other in zip(plain.state_dict().values(), found.state_dict().values(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(tmp_path):
    for workers in (0, 2):
        train(varied(SEMI, workers=workers), tmp_path / str(workers), console=quiet())
    first, second = (Checkpoints(tmp_path / name).load() for name in ("0", "2"))
    assert_same({**first, "recipe": None}, {**second, "recipe": None})


def test_a_trained_run_is_evaluated_as_any_other(tmp_path):
    train(SEMI, tmp_path, console=quiet())
    run, _ = evaluate_run(tmp_path, replace(SEMI.evaluation, metrics=("top1",), device="cpu"), console=quiet())
    assert run.record.dataset["num_images"] == 12
    assert load_trained(tmp_path)[0] == SEMI


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"cgc", "cgc_no_negatives", "retrofit"}))
def test_methods_that_need_labels_say_why_they_take_none(tmp_path, method):
    made = METHODS[method]()
    reason = "its encoder and its classifier are trained on the same images"
    reason = reason if "con" in method or method == "simclr" else "its loss needs the label of each image"
    message = (
        f"`labelled.rest` unlabelled is not for {type(made).__name__}: {reason}. Train CGC .* `labelled.rest` unused"
    )
    with pytest.raises(ArgumentError, match=message):
        train(replace(SEMI, method=made), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def test_more_images_in_a_step_than_there_are(tmp_path):
    recipe = replace(SEMI, labelled=replace(SEMI.labelled, unlabelled_batch_size=18))
    message = (
        r"`labelled.rest` unlabelled: a step has 18 of them, and there are 17: set `labelled.unlabelled_batch_size`"
    )
    with pytest.raises(ArgumentError, match=message):
        train(recipe, tmp_path, console=quiet())


def test_images_of_a_folder_may_move_but_must_be_as_many(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        file = tmp_path / "more" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        colours = torch.randint(255, (40, 36, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(colours.numpy()).save(file)
    recipe = replace(SEMI, labelled=Labelled(unlabelled=tmp_path / "more"), training=replace(SEMI.training, epochs=1))
    seen = seen_in(recipe, tmp_path / "run")
    assert len(seen) == 26 // 4, "all digits are labelled"
    assert {path for _, unlabelled, _ in seen for path in unlabelled} == {f"{number}.png" for number in range(8)}
    moved = (tmp_path / "more").rename(tmp_path / "moved")
    recipe = replace(recipe, labelled=Labelled(unlabelled=moved))
    train(recipe, tmp_path / "run", resume=True, console=quiet())
    (moved / "7.png").unlink()
    with pytest.raises(CheckpointError, match=r"there are 7 images without labels, the run was started with 8: use"):
        train(recipe, tmp_path / "run", resume=True, console=quiet())
    with pytest.raises(CheckpointError, match=r"there are 0 images without labels, the run was started with 8: use"):
        train(replace(recipe, labelled=Labelled()), tmp_path / "run", resume=True, console=quiet())


def test_a_nan_names_unlabelled_images_too(tmp_path, monkeypatch):
    forward = CGCStep.forward
    monkeypatch.setattr(CGCStep, "forward", lambda self, b: replace(o := forward(self, b), loss=o.loss * torch.nan))
    with pytest.raises(NonFiniteLossError):
        train(SEMI, tmp_path, console=quiet())
    assert len(json.loads((tmp_path / "nonfinite.json").read_text())["paths"]) == 10
