"""The training loop: `train` from top to bottom, one optimiser step, the end of an epoch.

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
    tensorboard/      event files, and wandb-id.txt, mlflow-id.txt: only where `training.loggers` names them

Everything random is a pure function of (seed, epoch, index) or (seed, step), so a run that is killed and resumed ends
with the same weights, bit for bit on a CPU, as one that was not. A run of several processes sees the same batches, of
which each process takes its share; after every step all of them agree on whether to save and whether to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from contrex import ranks
from contrex.data.streams import stream
from contrex.data.views.batch import Batch
from contrex.errors import LayerError
from contrex.evaluation import Validation, validate
from contrex.evaluation.validation import best_scale
from contrex.methods import Step, StepOutput
from contrex.models import Classifier, classifier_heads
from contrex.models.compiled import compiled_as_it_is, uncompiled
from contrex.settings import Recipe
from contrex.training import distributed
from contrex.training.contact_sheet import write_shown
from contrex.training.distributed import Runner
from contrex.training.lock import locked
from contrex.training.log import AGREEMENT, DIVERGENCE, KEPT, VALIDATION, VALIDATION_LOSS, say
from contrex.training.optimization import learning_rates, take_step
from contrex.training.preparing import prepare
from contrex.training.progress import progress_bar
from contrex.training.run import Run
from contrex.training.stopping import Watched, interrupted, report_nonfinite, signals
from contrex.training.timing import Pace
from contrex.training.trained import trained_classifier


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
    with locked(folder):
        run = prepare(recipe, folder, resume=resume, console=console)
        _finish_epochs(run, on_step)
        if recipe.training.shard:
            return trained_classifier(run.state())
        run.averages.keep()
        run.plan.finish()
        return run.classifier


def _finish_epochs(run: Run, on_step: Callable[[int, int], None] | None) -> None:
    """Take all steps that are left, and save, validate and stop where that is due."""
    with (
        closing(run.loader),
        closing(run.to_validate),
        closing(run.folder.loggers),
        signals() as requests,
        progress_bar(run.recipe.name, total=run.num_steps, done=run.place.step, console=run.console) as bar,
    ):
        while not run.is_finished:
            pace = Pace()
            for parts in epoch_batches(run, pace):
                bar.step(train_step(run, parts))
                if on_step is not None:
                    on_step(run.place.step, run.num_steps)
                # sync point: a signal reaches one process, a clock is one machine's; all save and stop after one step
                stopped_by, is_due = ranks.largest(requests.number(), _is_late(run))
                if stopped_by or is_due:
                    run.save()
                if stopped_by:
                    raise interrupted(stopped_by, run.folder.path, run.place)
            is_saved = end_epoch(run, pace)
            (stopped_by,) = ranks.largest(requests.number())  # sync point: it may have come during the validation
            if stopped_by:
                if not is_saved:
                    run.save()
                raise interrupted(stopped_by, run.folder.path, run.place)


def epoch_batches(run: Run, pace: Pace) -> Iterator[list[Batch]]:
    """The batches that are left of an epoch, phase by phase, each as the parts that this process has of it, one for
    each part of `training.accumulate`. Each phase begins before its first batch."""
    place, options = run.place, run.recipe.training
    while place.phase < len(run.plan.epochs[place.epoch]):
        run.begin_phase()
        first = run.phase_step  # of the phase: which unlabelled images come follows from it
        batches = run.loader.batches(place.epoch, phase=run.number, start=place.batch, step=first)
        for _ in range(place.batch, run.steps_per_epoch):
            with pace.waiting(), ranks.together():  # sync point: an image that cannot be read ends all processes
                parts = [next(batches) for _ in range(options.accumulate)]
            if place.batch == 0:
                _draw_views(run, parts[0])
            yield parts
        place.phase, place.batch = place.phase + 1, 0


WAYS = tuple(number / 16 for number in range(15, -1, -1))
"""The shares of the way that are tried when too many decisions changed, the longest first."""


def train_step(run: Run, parts: Sequence[Batch]) -> dict[str, float]:
    """Take one optimiser step of the current phase, and return the terms of its loss by their names in the log.

    Raises:
        NonFiniteLossError: the loss or its gradient is NaN or infinite; the weights are those of before.
    """
    place, phase, done = run.place, run.phase, run.phase_step
    # dropout and the like: a function of (seed, step, process), so that a resumed run draws what an unbroken one does
    torch.manual_seed(step_seed(run.recipe.training.seed, place.step, ranks.rank()))
    output = _gradient(run, parts)
    _tell_explained(run, phase.step.explains)
    rates = learning_rates(done, run.steps_per_epoch, phase)
    # sync point: the numbers come from the device, and all processes know of a NaN that one of them has
    loss, *values = ranks.means([output.loss, *output.logs.values()])
    along, clip_norm = math.isfinite(loss), phase.optimizer.clip_norm
    if not take_step(run.optimizers[run.number], rates=list(rates.values()), clip_norm=clip_norm, along=along):
        with run.runners[run.number].whole():
            raise report_nonfinite(run.folder.checkpoints, loss, run.classifier, parts, place, run.device)
    distributed.average_running_statistics(phase.step)  # sync point: all processes hold one network
    with torch.no_grad():  # the hooks after a step: teachers follow, averages take in the new weights
        phase.step.after_step(done + 1)
        run.averages.update(phase, done + 1)
    place.step, place.batch = place.step + 1, place.batch + 1
    terms = {phase.term(name): value for name, value in zip(output.logs, values, strict=True)}
    if ranks.rank() == 0:
        named = {phase.term(name): rate for name, rate in rates.items()}
        run.folder.write({"step": place.step, "epoch": place.epoch, **named, **terms})
    return terms


def end_epoch(run: Run, pace: Pace) -> bool:
    """Log the pace, validate and save where that is due, and go on to the next epoch; return whether it was saved."""
    place, options = run.place, run.recipe.training
    took = pace.line(place.epoch, options.batch_size)
    if ranks.rank() == 0:
        run.folder.timing.write(took)
    done, num_epochs, is_best = place.epoch + 1, len(run.plan.epochs), False
    is_due = done % options.validate_every == 0 or done == num_epochs
    if is_due and any(run.plan.phases[number].trains_classifier for number in run.plan.epochs[place.epoch]):
        found, has_labels = _validation(run), run.to_validate.has_labels
        if done == num_epochs:
            found = _as_confident(run, _gone_back(run, found))
        name = f"epoch {done}/{num_epochs}, validation {'top-1' if has_labels else 'agreement'}"
        sure = f", {found.kept:.1f} % of {found.num_sure} sure decisions" if found.num_sure else ""
        say(
            run.console,
            f"{run.recipe.name}: {name} {found.top1:.1f} %{sure}{run.folder.timing.in_words(took, options.workers)}",
        )
        # agreement with the network of before only ever falls: without labels the last checkpoint is the best
        is_best, place.best = found.top1 > place.best or not has_labels, max(found.top1, place.best)
    place.epoch, place.phase, place.batch = done, 0, 0
    if is_due:
        run.save(best=is_best)
    return is_due


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of everything that a step itself draws at random, such as dropout, in the process `rank`."""
    return int(stream("step", seed, step, *([rank] if rank else [])).integers(2**63))


def _gradient(run: Run, parts: Sequence[Batch]) -> StepOutput:
    """Put the gradient of the mean loss of the parts into the parameters, and return that loss and its terms."""
    options, runner = run.recipe.training, run.runners[run.number]
    run.optimizers[run.number].zero_grad(set_to_none=True)
    outputs = []
    for number, part in enumerate(parts, 1):
        seen = part.to(run.device, channels_last=options.channels_last)
        # the processes add up their gradients once, in the backward pass of the last part
        with nullcontext() if number == len(parts) else runner.unsynchronised():
            output = _forward(runner, seen, options.precision)
            (output.loss / len(parts)).backward()  # type: ignore[no-untyped-call]
        outputs.append(StepOutput(output.loss.detach(), output.logs))
    if len(outputs) == 1:
        return outputs[0]
    means = {name: torch.stack([one.logs[name] for one in outputs]).mean() for name in outputs[0].logs}
    return StepOutput(torch.stack([one.loss for one in outputs]).mean(), means)


def _forward(runner: Runner, batch: Batch, precision: str) -> StepOutput:
    precise = torch.autocast(batch.labels.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with precise, compiled_as_it_is():  # what is compiled comes before what a step explains
        return runner(batch)


def _validation(run: Run) -> Validation:
    """Measure accuracy and loss on the validation images, of the averaged weights where there are some, and log them;
    on images without labels, agreement with the step's reference."""
    place, runner = run.place, run.runners[run.plan.epochs[run.place.epoch][-1]]
    watched = replace(run.classifier, network=Watched(run.classifier.network, place))
    # the averages take the weights' places, shares are put together; compiled code would be compiled for eval mode
    with run.averages.in_place(), runner.whole(), uncompiled():
        reference = None if run.to_validate.has_labels else runner.step.reference
        found = validate(watched, run.to_validate, device=run.device, reference=reference, sure=runner.step.sure)
    names = (VALIDATION, VALIDATION_LOSS) if reference is None else (AGREEMENT, DIVERGENCE, KEPT)
    if ranks.rank() == 0:
        ends = {name: value for name in ("way", "scale") if (value := getattr(place, name)) != 1}
        run.folder.write({"step": place.step, "epoch": place.epoch, **ends, **dict(zip(names, found, strict=False))})
    return found


def _gone_back(run: Run, found: Validation) -> Validation:
    """Go back towards the weights that the run began with, on a straight line, as far as it takes for enough decisions
    of the step's reference to stay; return what is found there."""
    step = run.runners[run.plan.epochs[run.place.epoch][-1]].step
    if step.tolerance is None or step.began_as is None or found.kept >= step.tolerance:
        return found
    first = dict(step.began_as.state_dict())
    with run.averages.in_place():
        last = {name: value.clone() for name, value in step.network.state_dict().items()}
    changed = found.kept
    for way in WAYS:
        between = {name: value.lerp(last[name], way) for name, value in first.items() if value.is_floating_point()}
        step.network.load_state_dict(between, strict=False)
        run.averages.load_state_dict({name: between[name] for name in run.averages.state_dict()})
        run.place.way = way
        found = _validation(run)
        if found.kept >= step.tolerance:
            break
    say(
        run.console,
        f"{run.recipe.name}: {changed:.2f} % of the sure decisions is less than `method.tolerance` "
        f"{step.tolerance:g}: went back to {run.place.way:.0%} of the way from the first weights to the trained ones",
    )
    return found


def _as_confident(run: Run, found: Validation) -> Validation:
    """Multiply the logits by the number that brings the probabilities nearest to those of the step's reference, where
    the step asks for it and trains the linear layers that give them; return what is found there."""
    runner = run.runners[run.plan.epochs[run.place.epoch][-1]]
    step = runner.step
    if not step.rescales or step.reference is None or run.place.way == 0:
        return found
    of_heads = trained_heads(step)
    if not of_heads:
        say(
            run.console,
            f"{run.recipe.name}: logits keep their scale (`method.rescale`), as no linear layer that gives them is "
            "trained",
        )
        return found
    # sync point, as a validation: of the averaged weights, by all processes, each of which then has the same number
    with run.averages.in_place(), runner.whole(), uncompiled():
        watched = replace(run.classifier, network=Watched(run.classifier.network, run.place))
        scale = best_scale(watched, run.to_validate, device=run.device, reference=step.reference)
    with torch.no_grad():
        for parameter in of_heads.values():
            parameter.mul_(scale)
    averages = run.averages.state_dict()
    run.averages.load_state_dict(
        {name: value * scale if name in of_heads else value for name, value in averages.items()}
    )
    run.place.scale = scale
    say(
        run.console,
        f"{run.recipe.name}: logits times {scale:.3f}, at which probabilities are nearest to those of the network as "
        "it was; no decision changes",
    )
    return _validation(run)


def trained_heads(step: Step) -> dict[str, nn.Parameter]:
    """The parameters of the linear layers that give the logits, by name, where a step trains all of them; else none."""
    try:
        heads = classifier_heads(step.network)
    except LayerError:
        return {}
    found = {name: one for name, one in step.network.named_parameters() if name.rpartition(".")[0] in heads}
    moved = {one for one in step.trained_parameters() if one.requires_grad}
    return found if set(found.values()) <= moved else {}


def _draw_views(run: Run, part: Batch) -> None:
    """Leave a picture of what an epoch is trained on in the folder. Sync point: where it fails, all processes end."""
    with ranks.together():
        if ranks.rank() == 0:
            seen = part.to(run.device, channels_last=run.recipe.training.channels_last)
            write_shown(run.folder.path, run.phase.step, seen, run.place.epoch)


def _tell_explained(run: Run, layer: str | None) -> None:
    if layer is not None and layer not in run.explained:
        run.explained.append(layer)
        say(run.console, f"{run.recipe.name}: explains {layer}")


def _is_late(run: Run) -> bool:
    """Whether the last checkpoint is older than it may be, by the first process' clock."""
    waited = time.monotonic() - run.folder.saved_at
    return ranks.rank() == 0 and waited > 60 * run.recipe.training.checkpoint_minutes
