"""The training loop, one function read from top to bottom.

A run folder:

    recipe.json       the resolved recipe; `contrex train FOLDER/recipe.json` runs it again
    metrics.jsonl     a line per step and per epoch
    checkpoints/      the last and the best one
    nonfinite.json    only after a NaN loss or gradient: the images of the batch
    skipped_images.json    only where unreadable images were left out: which and why
    views/            a contact sheet per epoch of what a contrastive method is trained on

Everything random is a pure function of (seed, epoch, index) or (seed, step), so a run that is killed and resumed ends
with the same weights, bit for bit on a CPU, as one that was not.
"""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from contrex.data import image_set
from contrex.data.sample import ImageSet
from contrex.data.views import Batch, TrainingViews, num_batches, stream, training_batches, view_sizes
from contrex.devices import device_named
from contrex.errors import ArgumentError, CheckpointError, DataError, InterruptedRunError, NonFiniteLossError
from contrex.evaluation import validate
from contrex.methods import Plan, Step, StepOutput, training_plan
from contrex.models import Classifier, load_classifier
from contrex.records import from_plain, to_plain, write_json
from contrex.settings import Model, Recipe
from contrex.training.checkpoint import Checkpoints
from contrex.training.contact_sheet import write_shown
from contrex.training.log import VALIDATION, MetricsLog, progress_bar
from contrex.training.optimization import build_optimizer, descend, learning_rate

FREE_TO_CHANGE = frozenset(
    {"data.path", "evaluation", "training.device", "training.workers", "training.checkpoint_minutes"}
)
"""What a resumed run may do differently without changing its result: the same images may lie elsewhere."""

ADVICE = "lower `optimizer.lr` or set `optimizer.clip_norm`"
"""Against a run that diverges."""

SKIPPED = "skipped_images.json"


@dataclass
class Place:
    """How far a run has come: `epoch`, `phase` of the epoch and `batch` of the next step, steps done, best validation
    accuracy so far."""

    epoch: int = 0
    phase: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0


def train(recipe: Recipe, folder: Path, *, resume: bool = False, console: Console | None = None) -> Classifier:
    """Run `recipe`, leaving everything in `folder`, and return the trained classifier.

    With `resume`, a run that is there is continued, and one that is not is started.

    Raises:
        CheckpointError: the folder holds a run and `resume` is not set, or the run there has another recipe or images.
        DataError: there are no images to validate on, or they have other classes.
        NonFiniteLossError: the loss, its gradient or the validation logits became NaN or infinite; no step was taken
            along such a gradient.
        InterruptedRunError: Ctrl-C or SIGTERM; a checkpoint was written first.
    """
    checkpoints, log = Checkpoints(folder), MetricsLog(folder)
    saved = _saved(checkpoints, recipe, resume)
    options, device = recipe.training, device_named(recipe.training.device)
    images, validation = image_set(recipe.data, "train"), image_set(recipe.data, "val")
    _check_images(recipe, images, validation, saved)
    steps_per_epoch = num_batches(images, options.batch_size)
    console = console or Console(stderr=True)

    torch.manual_seed(options.seed)
    model = recipe.model if saved is None else without_file(recipe.model)
    classifier = load_classifier(model, num_classes=len(images.classes))
    plan = training_plan(classifier, recipe)
    for step in plan.modules():
        step.to(device)
        if options.channels_last:
            step.to(memory_format=torch.channels_last)
    optimizers = [build_optimizer(phase.parameters, phase.optimizer) for phase in plan.phases]
    place = _restore(saved, plan, optimizers)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "recipe.json", recipe)
    log.rewind(step=place.step, epoch=place.epoch)
    _report_skipped(folder, (images, validation), console)
    views = [_views(recipe, images, plan, number) for number in range(len(plan.phases))]

    def save(*, best: bool = False) -> None:
        content = {
            "steps": [step.state_dict() for step in plan.modules()],
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "place": vars(place),
            "epochs": len(plan.epochs),
            "recipe": to_plain(recipe),
            "classes": list(images.classes),
            "num_images": len(images),
            "torch": str(torch.__version__),
        }
        checkpoints.save(content, step=place.step, best=best)

    total = steps_per_epoch * sum(map(len, plan.epochs))
    with (
        _signals() as received,
        progress_bar(recipe.name, total=total, done=place.step, console=console) as bar,
    ):
        saved_at = time.monotonic()
        while place.epoch < len(plan.epochs):
            for number in plan.epochs[place.epoch][place.phase :]:
                phase = plan.phases[number]
                phase.begin(place.epoch)
                past_steps = steps_per_epoch * plan.epochs_before(place.epoch, number)
                for batch in training_batches(
                    views[number],
                    epoch=place.epoch,
                    batch_size=options.batch_size,
                    start=place.batch,
                    workers=options.workers,
                    pin_memory=device.type == "cuda",
                ):
                    torch.manual_seed(step_seed(options.seed, place.step))  # dropout and the like
                    seen = batch.to(device, channels_last=options.channels_last)
                    if place.batch == 0:
                        write_shown(folder, phase.step, seen, place.epoch)
                    output = _forward(phase.step, seen, options.precision)
                    lr = learning_rate(
                        past_steps + place.batch, steps_per_epoch, phase.epochs, phase.optimizer.lr, phase.schedule
                    )
                    if not descend(optimizers[number], output.loss, lr=lr, clip_norm=phase.optimizer.clip_norm):
                        raise _nonfinite(checkpoints, output.loss, classifier, batch, place, device)
                    terms = {phase.term(name): float(value) for name, value in output.logs.items()}
                    place.step, place.batch = place.step + 1, place.batch + 1
                    log.write({"step": place.step, "epoch": place.epoch, phase.term("lr"): lr, **terms})
                    bar.step(terms)
                    if received or time.monotonic() - saved_at > 60 * options.checkpoint_minutes:
                        save()
                        saved_at = time.monotonic()
                    if received:
                        raise _interrupted(received[0], folder, place)
                place.phase, place.batch = place.phase + 1, 0
            best = False
            if any(plan.phases[number].trains_classifier for number in plan.epochs[place.epoch]):
                watched = replace(classifier, network=_Watched(classifier.network, place))
                found = validate(watched, validation, recipe.data, device=device, workers=options.workers)
                log.write({"step": place.step, "epoch": place.epoch, VALIDATION: found.top1, "val_loss": found.loss})
                best, place.best = found.top1 > place.best, max(found.top1, place.best)
                bar.say(
                    f"{recipe.name}: epoch {place.epoch + 1}/{len(plan.epochs)}, validation top-1 {found.top1:.1f} %"
                )
            place.epoch, place.phase, place.batch = place.epoch + 1, 0, 0
            save(best=best)
            saved_at = time.monotonic()
            if received:  # during the validation
                raise _interrupted(received[0], folder, place)
    plan.finish()
    return classifier


def step_seed(seed: int, step: int) -> int:
    """The seed of everything that a step itself draws at random, such as dropout."""
    return int(stream("step", seed, step).integers(2**63))


def phase_seed(seed: int, phase: int) -> int:
    """The seed of the order and the views of a later phase."""
    return int(stream("phase", seed, phase).integers(2**31))


def load_trained(folder: Path, *, which: str = "last") -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a run folder, from its last or best checkpoint."""
    return trained(Checkpoints(folder).load(which))


def trained(content: Mapping[str, Any]) -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a checkpoint's content."""
    recipe: Recipe = from_plain(content["recipe"], Recipe, where="recipe")
    classifier = load_classifier(without_file(recipe.model), num_classes=len(content["classes"]))
    plan = training_plan(classifier, recipe)
    _load(plan, content)
    plan.finish()
    return recipe, classifier, tuple(content["classes"])


def _load(plan: Plan, content: Mapping[str, Any]) -> None:
    for step, state in zip(plan.modules(), content["steps"], strict=True):
        step.load_state_dict(state)


def saved_recipe(folder: Path) -> Recipe:
    """The recipe that the last checkpoint of a run folder was trained with."""
    recipe: Recipe = from_plain(Checkpoints(folder).load()["recipe"], Recipe, where="recipe")
    return recipe


def without_file(model: Model) -> Model:
    """The same network without the weights file that its run started from: the checkpoint has what became of it."""
    return replace(model, weights=None, fresh=())


class _Watched(nn.Module):
    """The network in validation: NaN logits have no first class."""

    def __init__(self, network: nn.Module, place: Place) -> None:
        super().__init__()
        self.network = network
        self._place = place

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        if logits.isnan().any():
            raise NonFiniteLossError(
                f"the validation logits became NaN after step {self._place.step}, at the end of epoch "
                f"{self._place.epoch}: the weights have diverged; {ADVICE}."
            )
        return logits


def _check_images(recipe: Recipe, images: ImageSet, validation: ImageSet, saved: Mapping[str, Any] | None) -> None:
    """Refuse now what would fail after an epoch, or go on as another run."""
    options, count = recipe.training, len(images.classes)
    if len(images) < options.batch_size:
        raise ArgumentError(
            f"`training.batch_size` {options.batch_size} is larger than the training set, {len(images)} images."
        )
    if len(validation) == 0:
        raise DataError(f"{validation.name} has no images, and a run is validated on them: give it at least one.")
    if list(validation.classes) != list(images.classes):
        raise DataError(f"{validation.name} has other classes than {images.name}: give both the same, in one order.")
    if recipe.model.num_classes not in (None, count):
        raise ArgumentError(
            f"`model.num_classes` is {recipe.model.num_classes}, {images.name} has {count} classes: leave it out."
        )
    if saved is not None and list(images.classes) != saved["classes"]:
        raise CheckpointError(f"{images.name} has other classes than the run was started on: use the same images.")
    if saved is not None and len(images) != saved.get("num_images", len(images)):
        raise CheckpointError(
            f"{images.name} has {len(images)} images, the run was started on {saved['num_images']}: use the same."
        )


def _report_skipped(folder: Path, splits: Sequence[ImageSet], console: Console) -> None:
    """Count and list the unreadable images that were left out."""
    skipped = {images.name: list(images.skipped) for images in splits if images.skipped}
    if skipped:
        write_json(folder / SKIPPED, skipped)
    for name, faults in skipped.items():
        lines = [f"unreadable images left out of {name}: {len(faults)}, listed in {folder / SKIPPED}", *faults[:5]]
        console.print("\n  ".join(lines), highlight=False, markup=False, soft_wrap=True)


def _views(recipe: Recipe, images: ImageSet, plan: Plan, number: int) -> TrainingViews:
    """What phase `number` is trained on; each phase draws its own crops."""
    resize, size = view_sizes(recipe.data)
    seed = recipe.training.seed
    return TrainingViews(
        images,
        resize=resize,
        size=size,
        augmentation=plan.phases[number].augmentation,
        seed=seed if number == 0 else phase_seed(seed, number),
        extra=plan.phases[number].step.needs_extra_views,
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
            f"or resume it as it was with: {_resuming(run)}"
        )
    return content


def _changed(old: Any, new: Any, name: str = "") -> set[str]:
    """The dotted names of the fields that differ and that a resumed run may not change."""
    if not isinstance(old, dict) or not isinstance(new, dict) or old.keys() != new.keys():
        return {name} if old != new else set()
    names = {key: f"{name}.{key}".lstrip(".") for key in old}
    return set().union(
        *(_changed(old[k], new[k], dotted) for k, dotted in names.items() if dotted not in FREE_TO_CHANGE)
    )


def _restore(saved: dict[str, Any] | None, plan: Plan, optimizers: Sequence[Optimizer]) -> Place:
    if saved is None:
        return Place()
    _load(plan, saved)
    for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(state)
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
    name = signal.Signals(number).name
    return InterruptedRunError(f"stopped by {name} after step {place.step}; continue with: {_resuming(folder)}", number)


def _resuming(folder: Path) -> str:
    """The command that continues a run, as a shell reads it."""
    return shlex.join(["contrex", "train", str(folder / "recipe.json"), "--folder", str(folder), "--resume"])


def _nonfinite(
    checkpoints: Checkpoints, loss: Tensor, classifier: Classifier, batch: Batch, place: Place, device: torch.device
) -> NonFiniteLossError:
    """The error for a NaN or infinite loss or gradient, after writing which images it came from."""
    what = "gradient" if loss.isfinite() else "loss"
    offending = _offending(classifier, batch, device)
    listed = checkpoints.folder.parent / "nonfinite.json"
    write_json(listed, {"step": place.step, "epoch": place.epoch, "paths": offending or list(batch.paths)})
    if len(offending) == len(batch):
        cause = f"every image of the batch gives non-finite logits, so the weights have diverged: {ADVICE}"
    elif offending:
        cause = f"these images alone give non-finite logits: {', '.join(offending[:5])}"
    else:
        cause = f"no single image does it (the first of the batch is {batch.paths[0]}): {ADVICE}"
    last = "The last checkpoint is from before it." if checkpoints.exists() else "There is no checkpoint yet."
    return NonFiniteLossError(
        f"the {what} became NaN or infinite at step {place.step} of epoch {place.epoch}; {cause}. "
        f"All paths: {listed}. {last}"
    )


def _offending(classifier: Classifier, batch: Batch, device: torch.device) -> list[str]:
    classifier.network.eval()
    with torch.no_grad():
        logits = classifier.network(classifier.normalise(batch.to(device).images))
    return [path for path, finite in zip(batch.paths, logits.isfinite().all(1).tolist(), strict=True) if not finite]
