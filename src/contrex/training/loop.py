"""The training loop, one function read from top to bottom.

A run folder:

    recipe.json       the resolved recipe; `contrex train FOLDER/recipe.json` runs it again
    metrics.jsonl     a line per step and per epoch
    checkpoints/      the last and the best one
    nonfinite.json    only after a NaN loss: the images of the batch

Everything random is a pure function of (seed, epoch, index) or (seed, step), so a run that is killed and resumed ends
with the same weights, bit for bit on a CPU, as one that was not.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch.optim import Optimizer

from contrex.data import image_set
from contrex.data.sample import ImageSet
from contrex.data.views import Batch, TrainingViews, num_batches, stream, training_batches, view_sizes
from contrex.devices import device_named
from contrex.errors import ArgumentError, CheckpointError, InterruptedRunError, NonFiniteLossError
from contrex.evaluation import top1_accuracy
from contrex.methods import Step, StepOutput, training_step
from contrex.models import Classifier, load_classifier
from contrex.records import from_plain, to_plain, write_json
from contrex.settings import Recipe
from contrex.training.checkpoint import Checkpoints
from contrex.training.log import MetricsLog, progress_bar
from contrex.training.optimization import build_optimizer, descend, learning_rate

FREE_TO_CHANGE = ("evaluation", "device", "workers", "checkpoint_minutes")
"""What a resumed run may do differently without changing its result."""


@dataclass
class Place:
    """How far a run has come: `epoch` and `batch` of the next step, steps done, best validation accuracy so far."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0


def train(recipe: Recipe, folder: Path, *, resume: bool = False, console: Console | None = None) -> Classifier:
    """Run `recipe`, leaving everything in `folder`, and return the trained classifier.

    Raises:
        CheckpointError: the folder holds a run and `resume` is not set, or the run there has another recipe.
        NonFiniteLossError: the loss became NaN or infinite; the last checkpoint is from before it.
        InterruptedRunError: Ctrl-C or SIGTERM; a checkpoint was written first.
    """
    checkpoints, log = Checkpoints(folder), MetricsLog(folder)
    saved = _saved(checkpoints, recipe, resume)
    options, device = recipe.training, device_named(recipe.training.device)
    images, validation = image_set(recipe.data, "train"), image_set(recipe.data, "val")
    steps_per_epoch = num_batches(images, options.batch_size)
    if steps_per_epoch == 0:
        raise ArgumentError(
            f"`training.batch_size` {options.batch_size} is larger than the training set, {len(images)} images."
        )

    torch.manual_seed(options.seed)
    classifier = load_classifier(recipe.model, num_classes=len(images.classes))
    step = training_step(classifier, recipe.method).to(device)
    if options.channels_last:
        step = step.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(list(step.parameters()), recipe.optimizer)
    place = _restore(saved, step, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "recipe.json", recipe)
    log.rewind(place.step)
    views = _views(recipe, images, extra=step.needs_extra_views)

    def save(*, best: bool = False) -> None:
        content = {
            "step": step.state_dict(),
            "optimizer": optimizer.state_dict(),
            "place": vars(place),
            "recipe": to_plain(recipe),
            "classes": list(images.classes),
            "torch": str(torch.__version__),
        }
        checkpoints.save(content, step=place.step, best=best)

    total = options.epochs * steps_per_epoch
    with (
        _signals() as received,
        progress_bar(recipe.name, total=total, done=place.step, console=console or Console(stderr=True)) as bar,
    ):
        saved_at = time.monotonic()
        while place.epoch < options.epochs:
            step.train()
            for batch in training_batches(
                views,
                epoch=place.epoch,
                batch_size=options.batch_size,
                start=place.batch,
                workers=options.workers,
                pin_memory=device.type == "cuda",
            ):
                torch.manual_seed(step_seed(options.seed, place.step))  # dropout and the like
                output = _forward(step, batch.to(device, channels_last=options.channels_last), options.precision)
                if not torch.isfinite(output.loss):  # a sync point: a NaN must never reach the weights
                    raise _nonfinite(folder, classifier, batch, place, device)
                lr = learning_rate(place.step, steps_per_epoch, options.epochs, recipe.optimizer.lr, recipe.schedule)
                descend(optimizer, output.loss, lr=lr, clip_norm=recipe.optimizer.clip_norm)
                terms = {name: float(value) for name, value in output.logs.items()}
                place.step, place.batch = place.step + 1, place.batch + 1
                log.write({"step": place.step, "epoch": place.epoch, "lr": lr, **terms})
                bar.step(terms)
                if received or time.monotonic() - saved_at > 60 * options.checkpoint_minutes:
                    save()
                    saved_at = time.monotonic()
                if received:
                    raise _interrupted(received[0], folder, place)
            accuracy = top1_accuracy(classifier, validation, recipe.data, device=device)
            log.write({"step": place.step, "epoch": place.epoch, "val_top1": accuracy})
            best = accuracy > place.best
            place.epoch, place.batch, place.best = place.epoch + 1, 0, max(accuracy, place.best)
            save(best=best)
            saved_at = time.monotonic()
            bar.say(f"{recipe.name}: epoch {place.epoch}/{options.epochs}, validation top-1 {accuracy:.1f} %")
    step.eval()
    return classifier


def step_seed(seed: int, step: int) -> int:
    """The seed of everything that a step itself draws at random, such as dropout."""
    return int(stream("step", seed, step).integers(2**63))


def load_trained(folder: Path, *, which: str = "last") -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a run folder, from its last or best checkpoint."""
    return trained(Checkpoints(folder).load(which))


def trained(content: Mapping[str, Any]) -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a checkpoint's content."""
    recipe: Recipe = from_plain(content["recipe"], Recipe, where="recipe")
    unweighted = replace(recipe.model, weights=None, fresh=())
    classifier = load_classifier(unweighted, num_classes=len(content["classes"]))
    training_step(classifier, recipe.method).load_state_dict(content["step"])
    classifier.network.eval()
    return recipe, classifier, tuple(content["classes"])


def _views(recipe: Recipe, images: ImageSet, *, extra: bool) -> TrainingViews:
    resize, size = view_sizes(recipe.data)
    return TrainingViews(
        images, resize=resize, size=size, augmentation=recipe.augmentation, seed=recipe.training.seed, extra=extra
    )


def _forward(step: Step, batch: Batch, precision: str) -> StepOutput:
    with torch.autocast(batch.labels.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        output: StepOutput = step(batch)
    return output


def _saved(checkpoints: Checkpoints, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, if any; refuses to mix two runs in one folder."""
    if not checkpoints.exists():
        return None
    run = checkpoints.folder.parent
    if not resume:
        raise CheckpointError(f"{run} already holds a run: continue it with --resume, or choose another --folder.")
    content = checkpoints.load()
    changed = sorted(_changed(content["recipe"], to_plain(recipe)))
    if changed:
        raise CheckpointError(
            f"{run} was started with another recipe, different in {', '.join(changed)}: choose another --folder, "
            f"or resume it as it was with: contrex train {run / 'recipe.json'} --folder {run} --resume"
        )
    return content


def _changed(old: Any, new: Any, name: str = "") -> set[str]:
    """The dotted names of the fields that differ and that a resumed run may not change."""
    if not isinstance(old, dict) or not isinstance(new, dict) or old.keys() != new.keys():
        return {name} if old != new else set()
    fields = (key for key in old if key not in FREE_TO_CHANGE)
    return set().union(*(_changed(old[key], new[key], f"{name}.{key}".lstrip(".")) for key in fields))


def _restore(saved: dict[str, Any] | None, step: Step, optimizer: Optimizer) -> Place:
    if saved is None:
        return Place()
    step.load_state_dict(saved["step"])
    optimizer.load_state_dict(saved["optimizer"])
    return Place(**saved["place"])


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects the first SIGINT or SIGTERM instead of dying from it; a second one acts as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    try:
        for number in usual:
            signal.signal(number, note)
        yield received
    finally:
        restore()


def _interrupted(number: int, folder: Path, place: Place) -> InterruptedRunError:
    return InterruptedRunError(
        f"stopped by {signal.Signals(number).name} after step {place.step}; "
        f"continue with: contrex train {folder / 'recipe.json'} --folder {folder} --resume",
        number,
    )


def _nonfinite(
    folder: Path, classifier: Classifier, batch: Batch, place: Place, device: torch.device
) -> NonFiniteLossError:
    """The error for a NaN or infinite loss, after writing which images it came from."""
    offending = _offending(classifier, batch, device)
    paths = offending or list(batch.paths)
    write_json(folder / "nonfinite.json", {"step": place.step, "epoch": place.epoch, "paths": paths})
    cause = (
        f"these images alone give non-finite logits: {', '.join(offending[:5])}"
        if offending
        else f"no single image does it (the first of the batch is {batch.paths[0]}): lower the learning rate or clip"
    )
    return NonFiniteLossError(
        f"the loss became NaN or infinite at step {place.step} of epoch {place.epoch}; {cause}. "
        f"All paths: {folder / 'nonfinite.json'}. The last checkpoint is from before it."
    )


def _offending(classifier: Classifier, batch: Batch, device: torch.device) -> list[str]:
    classifier.network.eval()
    with torch.no_grad():
        logits = classifier.network(classifier.normalise(batch.to(device).images))
    return [path for path, finite in zip(batch.paths, logits.isfinite().all(1).tolist(), strict=True) if not finite]
