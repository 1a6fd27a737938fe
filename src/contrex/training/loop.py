"""The training loop, one function read from top to bottom.

A run folder:

    recipe.json       the resolved recipe; `contrex train FOLDER/recipe.json` runs it again
    metrics.jsonl     a line per step and per epoch
    timing.jsonl      a line per epoch: images per second, and the share of the time that was waited for them
    checkpoints/      the last and the best one
    lock              held by the process that trains (`contrex.training.lock`)
    nonfinite.json    only after a NaN loss or gradient: the images of the batch
    labelled.txt      the images with a label, where not all have one
    skipped_images.json    only where unreadable images were left out: which and why
    views/            a contact sheet per epoch of what a contrastive method is trained on

Everything random is a pure function of (seed, epoch, index) or (seed, step), so a run that is killed and resumed ends
with the same weights, bit for bit on a CPU, as one that was not. A run of several processes sees the same batches, of
which each process takes its share; after every step all of them agree on whether to save and whether to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.optim import Optimizer

from contrex import ranks
from contrex.data.labelled import LIST, Draw, draw_of, training_images
from contrex.data.loading import TrainingLoader
from contrex.data.sample import ImageSet
from contrex.data.views import Batch, TrainingViews, num_batches, stream, view_sizes
from contrex.devices import device_named
from contrex.errors import ArgumentError, CheckpointError, DataError, printable
from contrex.evaluation import validate, validation_groups
from contrex.methods import Phase, Plan, StepOutput, training_plan
from contrex.models import Classifier, load_classifier
from contrex.models.compiled import compiled_as_it_is, uncompiled
from contrex.records import from_plain, to_plain, write_json
from contrex.settings import Model, Recipe, Training
from contrex.training import compiling, distributed, sharding
from contrex.training.averaging import Averages, load_averages
from contrex.training.checkpoint import Checkpoints
from contrex.training.contact_sheet import write_shown
from contrex.training.distributed import Runner
from contrex.training.lock import locking
from contrex.training.log import VALIDATION, MetricsLog, progress_bar
from contrex.training.optimization import build_optimizer, learning_rates, take_step
from contrex.training.resuming import load_steps, other_world, restored, saved_content
from contrex.training.stopping import Watched, interrupted, nonfinite, signals
from contrex.training.timing import Pace, TimingLog, in_words
from contrex.training.unlabelled import check_same, num_unlabelled, unlabelled_cycle

SKIPPED = "skipped_images.json"


@locking
def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Classifier:
    """Run `recipe`, leaving everything in `folder`, and return the trained classifier.

    With `resume`, a run that is there is continued, and one that is not is started. In a run of several processes
    (`contrex.ranks`) all call it: each takes its share of every batch, and the first one writes the folder.
    `on_step(done, total)` is called after every step; what it raises ends the run.

    Raises:
        BusyRunError: another process is training in the folder.
        CheckpointError: the folder holds a run and `resume` is not set, or the run there has another recipe or images.
        ArgumentError: the options do not fit the method, the device or the number of processes.
        DataError: there are no images to validate on, or they have other classes.
        NonFiniteLossError: the loss, its gradient or the validation logits became NaN or infinite; no step was taken
            along such a gradient.
        InterruptedRunError: Ctrl-C or SIGTERM, in whichever process; a checkpoint was written first.
        ProcessError: another process has failed.
    """
    checkpoints, log, timing = Checkpoints(folder), MetricsLog(folder), TimingLog(folder)
    is_first = ranks.rank() == 0
    saved = ranks.from_first(lambda: saved_content(checkpoints, recipe, resume))
    options, device = recipe.training, device_named(recipe.training.device)
    distributed.check_device(options, device)
    images, validation, unlabelled = training_images(recipe)
    draw = draw_of(images)
    _check_images(recipe, images, validation, saved)
    _check_draw(draw, saved)
    check_same(unlabelled, saved)
    steps_per_epoch = num_batches(images, options.batch_size)
    console = (console or Console(stderr=True)) if is_first else Console(quiet=True)

    torch.manual_seed(options.seed)
    model = recipe.model if saved is None else without_file(recipe.model)
    classifier = load_classifier(model, num_classes=len(images.classes))
    if classifier.left_out:
        _say(console, f"left out of {model.weights}: {', '.join(classifier.left_out)}")
    if options.freeze and recipe.model.weights is None:
        names = " ".join(options.freeze)
        _say(console, f"`training.freeze` keeps {names} at random weights: there is no `model.weights`")
    classifier = distributed.synchronise_batch_norm(classifier, options)
    plan = training_plan(classifier, recipe)
    distributed.check_plan(options, plan)
    cycle = unlabelled_cycle(recipe, plan, unlabelled)
    for step in plan.modules():
        step.to(device)
        if options.channels_last and not options.shard:  # FSDP2 takes weights in torch's own layout only
            step.to(memory_format=torch.channels_last)
    if saved is not None:
        load_steps(plan, saved)
    distributed.check_equal(plan)
    plan, runners = _on_all_processes(plan, recipe, device)
    optimizers = [build_optimizer(phase.parameters, phase.optimizer, phase.head) for phase in plan.phases]
    place = restored(saved, optimizers, sharding.shared_out if options.shard else None)
    averages = Averages(plan, options.ema)
    if saved is not None:
        averages.load_state_dict(saved.get("averages", {}), sharding.shared_as if options.shard else None)
    with ranks.together():
        if is_first:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "recipe.json", recipe)
            if draw is not None:
                draw.write(folder)
            log.rewind(step=place.step, epoch=place.epoch)
            timing.rewind(epoch=place.epoch)
            _report_skipped(folder, [one for one in (images, validation, unlabelled) if one is not None], console)
    if (warning := other_world(saved)) is not None:
        _say(console, warning)
    loader = TrainingLoader(
        [_views(recipe, images, phase, number) for number, phase in enumerate(plan.phases)],
        batch_size=options.batch_size,
        parts=distributed.own_parts(options),
        cycle=cycle,
        workers=options.workers,
        pin_memory=device.type == "cuda",
    )
    to_validate = validation_groups(validation, recipe.data, workers=options.workers)
    explained: list[str] = []  # layers, with their grids

    def content() -> dict[str, Any]:
        states = {
            "steps": [step.state_dict() for step in plan.modules()],
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "averages": averages.state_dict(),
        }
        return {
            **(sharding.whole_state(states) if options.shard else states),
            "place": vars(place),
            "epochs": len(plan.epochs),
            "finished": place.epoch == len(plan.epochs),
            "explains": list(explained),
            "recipe": to_plain(recipe),
            "classes": list(images.classes),
            "num_images": len(images),
            "num_unlabelled": num_unlabelled(unlabelled),
            "labelled_sha256": None if draw is None else draw.sha256,
            "world_size": ranks.world_size(),
            "torch": str(torch.__version__),
        }

    def save(*, best: bool = False) -> None:
        found = content()
        with ranks.together():
            if is_first:
                checkpoints.save(found, step=place.step, best=best)

    total = steps_per_epoch * sum(map(len, plan.epochs))
    with (
        closing(loader),
        closing(to_validate),
        signals() as requests,
        progress_bar(recipe.name, total=total, done=place.step, console=console) as bar,
    ):
        saved_at = time.monotonic()
        while place.epoch < len(plan.epochs):
            pace = Pace()
            for number in plan.epochs[place.epoch][place.phase :]:
                phase = plan.phases[number]
                phase.begin(place.epoch)
                if number not in runners:
                    runners[number] = distributed.runner(phase.step)
                run = runners[number]
                past_steps = steps_per_epoch * plan.epochs_before(place.epoch, number)
                first = past_steps + place.batch
                batches = loader.batches(place.epoch, phase=number, start=place.batch, step=first)
                for _ in range(place.batch, steps_per_epoch):
                    with pace.waiting(), ranks.together():  # an image that cannot be read ends all processes
                        parts = [next(batches) for _ in range(options.accumulate)]
                    if place.batch == 0:
                        with ranks.together():
                            if is_first:
                                seen = parts[0].to(device, channels_last=options.channels_last)
                                write_shown(folder, phase.step, seen, place.epoch)
                    torch.manual_seed(step_seed(options.seed, place.step, ranks.rank()))  # dropout and the like
                    output = _gradient(run, parts, optimizers[number], options, device)
                    if phase.step.explains is not None and phase.step.explains not in explained:
                        explained.append(phase.step.explains)
                        bar.say(f"{recipe.name}: explains {phase.step.explains}")
                    rates = learning_rates(past_steps + place.batch, steps_per_epoch, phase)
                    loss, *values = ranks.means([output.loss, *output.logs.values()])
                    finite = math.isfinite(loss)  # a sync point: a NaN must never reach the weights
                    clip_norm = phase.optimizer.clip_norm
                    if not take_step(optimizers[number], rates=list(rates.values()), clip_norm=clip_norm, along=finite):
                        with run.whole():
                            raise nonfinite(checkpoints, loss, classifier, parts, place, device)
                    averages.update(phase, past_steps + place.batch + 1)
                    distributed.average_running_statistics(phase.step)
                    terms = {phase.term(name): value for name, value in zip(output.logs, values, strict=True)}
                    place.step, place.batch = place.step + 1, place.batch + 1
                    if is_first:
                        named = {phase.term(name): rate for name, rate in rates.items()}
                        log.write({"step": place.step, "epoch": place.epoch, **named, **terms})
                    bar.step(terms)
                    if on_step is not None:
                        on_step(place.step, total)
                    is_late = is_first and time.monotonic() - saved_at > 60 * options.checkpoint_minutes
                    stopped_by, any_due = ranks.largest(requests.number(), is_late)
                    if stopped_by or any_due:
                        save()
                        saved_at = time.monotonic()
                    if stopped_by:
                        raise interrupted(stopped_by, folder, place)
                place.phase, place.batch = place.phase + 1, 0
            took = pace.line(place.epoch, options.batch_size)
            if is_first:
                timing.write(took)
            best, done = False, place.epoch + 1
            is_due = done % options.validate_every == 0 or done == len(plan.epochs)
            if is_due and any(plan.phases[number].trains_classifier for number in plan.epochs[place.epoch]):
                watched = replace(classifier, network=Watched(classifier.network, place))
                # compiled code would be compiled again for eval mode
                with averages.in_place(), run.whole(), uncompiled():
                    found = validate(watched, to_validate, device=device)
                if is_first:
                    log.write(
                        {"step": place.step, "epoch": place.epoch, VALIDATION: found.top1, "val_loss": found.loss}
                    )
                best, place.best = found.top1 > place.best, max(found.top1, place.best)
                epoch = f"epoch {place.epoch + 1}/{len(plan.epochs)}"
                bar.say(f"{recipe.name}: {epoch}, validation top-1 {found.top1:.1f} %{in_words(took)}")
            place.epoch, place.phase, place.batch = done, 0, 0
            if is_due:
                save(best=best)
                saved_at = time.monotonic()
            (stopped_by,) = ranks.largest(requests.number())
            if stopped_by:  # during the validation
                if not is_due:
                    save()
                raise interrupted(stopped_by, folder, place)
    if options.shard:
        return trained(content())[1]
    averages.keep()
    plan.finish()
    return classifier


def _on_all_processes(plan: Plan, recipe: Recipe, device: torch.device) -> tuple[Plan, dict[int, Runner]]:
    """The plan as the processes share it, its network compiled where that is asked for, and the runners there are."""
    options, (step, *_) = recipe.training, plan.modules()
    if options.compile or (options.sync_batch_norm and step.explains_in_training):
        side = view_sizes(recipe.data)[1]
        images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(options.seed)).to(device)
        if options.sync_batch_norm and step.explains_in_training:
            distributed.check_batch_norm(step, compiling.names_after_explained(step, images))
        if options.compile:
            compiling.compile_network(step, images)
    if not options.shard:
        return plan, {}
    plan, runner = sharding.sharded(plan, device)
    return plan, {0: runner}


def _gradient(
    run: Runner, parts: Sequence[Batch], optimizer: Optimizer, options: Training, device: torch.device
) -> StepOutput:
    """Leave the gradient of the mean loss of the parts in the parameters; that loss and its terms."""
    optimizer.zero_grad(set_to_none=True)
    outputs = []
    for number, part in enumerate(parts, 1):
        seen = part.to(device, channels_last=options.channels_last)
        with nullcontext() if number == len(parts) else run.unsynchronised():
            output = _forward(run, seen, options.precision)
            (output.loss / len(parts)).backward()  # type: ignore[no-untyped-call]
        outputs.append(StepOutput(output.loss.detach(), output.logs))
    if len(outputs) == 1:
        return outputs[0]
    means = {name: torch.stack([one.logs[name] for one in outputs]).mean() for name in outputs[0].logs}
    return StepOutput(torch.stack([one.loss for one in outputs]).mean(), means)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of everything that a step itself draws at random, such as dropout, in the process `rank`."""
    return int(stream("step", seed, step, *([rank] if rank else [])).integers(2**63))


def phase_seed(seed: int, phase: int) -> int:
    """The seed of the order and the views of a later phase."""
    return int(stream("phase", seed, phase).integers(2**31))


def load_trained(folder: Path, *, which: str = "last") -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a run folder, from its last or best checkpoint."""
    return trained(Checkpoints(folder).load(which))


def trained(content: Mapping[str, Any]) -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a checkpoint's content; averaged weights where it has them."""
    recipe: Recipe = from_plain(content["recipe"], Recipe, where="recipe")
    classifier = load_classifier(without_file(recipe.model), num_classes=len(content["classes"]))
    plan = training_plan(classifier, recipe)
    load_steps(plan, content)
    load_averages(classifier.network, content.get("averages", {}))
    plan.finish()
    return recipe, classifier, tuple(content["classes"])


def saved_recipe(folder: Path) -> Recipe:
    """The recipe that the last checkpoint of a run folder was trained with."""
    recipe: Recipe = from_plain(Checkpoints(folder).load()["recipe"], Recipe, where="recipe")
    return recipe


def without_file(model: Model) -> Model:
    """The same network without the weights file that its run started from: the checkpoint has what became of it."""
    return replace(model, weights=None, layout="plain", fresh=())


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
    if count < 2:
        raise DataError(
            f"{images.name} has {count} class, and the cross-entropy of one class is 0 whatever the network says: give "
            "it at least two."
        )
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


def _check_draw(draw: Draw | None, saved: Mapping[str, Any] | None) -> None:
    before = None if saved is None else saved.get("labelled_sha256")
    if saved is not None and before != (None if draw is None else draw.sha256):
        raise CheckpointError(
            f"the labelled images are others than the run was started with, which are in its {LIST}: use the same "
            "images and `labelled.seed`, or choose another --folder."
        )


def _report_skipped(folder: Path, splits: Sequence[ImageSet], console: Console) -> None:
    """Count and list the unreadable images that were left out."""
    skipped = {images.name: list(images.skipped) for images in splits if images.skipped}
    if skipped:
        write_json(folder / SKIPPED, skipped)
    for name, faults in skipped.items():
        lines = [f"unreadable images left out of {name}: {len(faults)}, listed in {folder / SKIPPED}", *faults[:5]]
        _say(console, "\n  ".join(lines))


def _say(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def _views(recipe: Recipe, images: ImageSet, phase: Phase, number: int) -> TrainingViews:
    """What phase `number` is trained on; each phase draws its own crops."""
    resize, size = view_sizes(recipe.data)
    seed = recipe.training.seed
    return TrainingViews(
        images,
        resize=resize,
        size=size,
        augmentation=phase.augmentation,
        seed=seed if number == 0 else phase_seed(seed, number),
        extra=phase.step.needs_extra_views and not recipe.labelled.has_unlabelled,
        composite=phase.step.needs_composites,
    )


def _forward(run: Runner, batch: Batch, precision: str) -> StepOutput:
    precise = torch.autocast(batch.labels.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with precise, compiled_as_it_is():  # what is compiled comes before what a step explains
        return run(batch)
