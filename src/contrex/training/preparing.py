"""From a recipe and a folder to a run that is ready for its next step: images, network, plan, and what was saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from contrex import ranks
from contrex.data.labelled import TrainingImages, draw_of, training_images
from contrex.data.loading import TrainingLoader
from contrex.data.sample import ImageSet
from contrex.data.streams import stream
from contrex.data.views.squares import view_sizes
from contrex.data.views.training import TrainingViews
from contrex.devices import device_named
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import validation_groups
from contrex.methods import Phase, Plan, training_plan
from contrex.models import Classifier, class_names, eval_mode, load_classifier, model_logits
from contrex.models.named import library_of
from contrex.records import write_json
from contrex.settings import Recipe
from contrex.training import compiling, distributed, sharding
from contrex.training.averaging import Averages
from contrex.training.distributed import Runner
from contrex.training.log import say
from contrex.training.loggers import logger_class
from contrex.training.optimization import build_optimizer
from contrex.training.resuming import check_same_images, load_optimizers, load_steps, other_world, saved_content
from contrex.training.run import Run, RunFolder
from contrex.training.state import Place, RunState, fingerprint
from contrex.training.trained import without_file
from contrex.training.unlabelled import check_labels, unlabelled_cycle

SKIPPED = "skipped_images.json"


def prepare(recipe: Recipe, folder: Path, *, resume: bool = False, console: Console | None = None) -> Run:
    """Make the run of `recipe` in `folder`, ready for its first step, or for the one after its last checkpoint.

    Raises what `contrex.training.train` does, but for what happens in a step.
    """
    options, device, files = recipe.training, device_named(recipe.training.device), RunFolder(folder)
    # sync point: only the first process looks into the folder, and all go on from what it finds
    content = ranks.from_first(lambda: saved_content(files.checkpoints, recipe, resume))
    saved = None if content is None else RunState.from_checkpoint(content)
    distributed.check_device(options, device)
    images = training_images(recipe)
    _check_images(recipe, images)
    if saved is not None:
        check_same_images(images, saved)
    console = (console or Console(stderr=True)) if ranks.rank() == 0 else Console(quiet=True)

    classifier = _classifier(recipe, images, saved, console)
    plan = training_plan(classifier, recipe)
    check_labels(recipe, plan, images)
    distributed.check_plan(options, plan)
    if saved is None and recipe.model.is_untrained and any(step.reference is not None for step in plan.modules()):
        say(console, f"{type(recipe.method).__name__} keeps the outputs of random weights: there is no `model.weights`")
    cycle = unlabelled_cycle(recipe, plan, images.unlabelled)
    _move(plan, recipe, device)
    if saved is not None:
        load_steps(plan, saved)
    distributed.check_equal(plan)  # sync point: one process with other weights would never be noticed later
    known = fingerprint(images, _classes(classifier, recipe, images, saved))  # while each process has the whole network
    plan, runners = on_all_processes(plan, recipe, device)
    # After the weights were shared out, which puts other parameters in the places of these.
    optimizers = [build_optimizer(phase.parameters, phase.optimizer, phase.head) for phase in plan.phases]
    averages = Averages(plan, options.ema)
    if saved is not None:
        load_optimizers(optimizers, saved, sharding.shared_out if options.shard else None)
        averages.load_state_dict(saved.averages, sharding.own_share_of if options.shard else None)
        if (warning := other_world(saved)) is not None:
            say(console, warning)
    place = Place() if saved is None else saved.place
    _open_folder(files, recipe, images, place, console)
    return Run(
        recipe=recipe,
        folder=files,
        device=device,
        classifier=classifier,
        plan=plan,
        runners=runners,
        optimizers=optimizers,
        averages=averages,
        place=place,
        data=known,
        loader=TrainingLoader(
            [_views(recipe, images.labelled, phase, number) for number, phase in enumerate(plan.phases)],
            batch_size=options.batch_size,
            parts=distributed.own_parts(options),
            cycle=cycle,
            workers=options.workers,
            pin_memory=device.type == "cuda",
        ),
        to_validate=validation_groups(images.validation, recipe.data, workers=options.workers),
        console=console,
        explained=[],
    )


def on_all_processes(plan: Plan, recipe: Recipe, device: torch.device) -> tuple[Plan, dict[int, Runner]]:
    """Compile the network and share it out where that is asked for; return the plan, and the runners that there are
    now."""
    options, (step, *_) = recipe.training, plan.modules()
    if options.compile or (options.sync_batch_norm and step.explains_in_training):
        side = view_sizes(recipe.data)[1]
        # any images do; a generator of their own leaves the run's random numbers alone
        images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(options.seed)).to(device)
        if options.sync_batch_norm and step.explains_in_training:
            distributed.check_batch_norm(step, compiling.names_after_explained(step, images))
        if options.compile:
            compiling.compile_network(step, images)
    if not options.shard:
        return plan, {}
    plan, runner = sharding.sharded(plan, device)
    return plan, {0: runner}


def phase_seed(seed: int, phase: int) -> int:
    """The seed of the order of images and of their views in a later phase."""
    return int(stream("phase", seed, phase).integers(2**31))


def _classifier(recipe: Recipe, images: TrainingImages, saved: RunState | None, console: Console) -> Classifier:
    """The network that is trained, with the weights that a new run starts from."""
    torch.manual_seed(recipe.training.seed)  # of the initialisation: every process draws the same weights
    model = recipe.model if saved is None else without_file(recipe.model)
    known = images.labelled.classes if saved is None else saved.data.classes
    count = len(known) or None  # None: the weights tell
    classifier = load_classifier(model, num_classes=count, is_bare=saved is not None, draws=True)
    if classifier.left_out:
        say(console, f"left out of {model.weights}: {', '.join(classifier.left_out)}")
    if recipe.training.freeze and recipe.model.is_untrained:
        names = " ".join(recipe.training.freeze)
        say(console, f"`training.freeze` keeps {names} at random weights: there is no `model.weights`")
    return distributed.synchronise_batch_norm(classifier, recipe.training)


def _classes(classifier: Classifier, recipe: Recipe, images: TrainingImages, saved: RunState | None) -> tuple[str, ...]:
    """The names of a network's classes where the images know none: those of before where the run goes on."""
    if images.labelled.has_labels:
        return ()
    return names_of_classes(classifier, recipe) if saved is None else saved.data.classes


def names_of_classes(classifier: Classifier, recipe: Recipe) -> tuple[str, ...]:
    """The names of a network's classes where the images know none: its own, or as many as it has logits for one of
    them.

    Raises:
        ArgumentError: `model.classes` has other than one name for each, or there is one logit alone.
    """
    side = view_sizes(recipe.data)[1]
    device = next(classifier.network.parameters()).device  # the network may have moved already
    with eval_mode(classifier.network), torch.no_grad():
        logits = model_logits(classifier.network, classifier.normalise(torch.zeros(1, 3, side, side, device=device)))
    own, count = tuple(classifier.names or ()), logits.shape[1]
    if count < 2:
        raise ArgumentError(
            f"{recipe.model.name} has {count} logit, and images without labels hold what a softmax says, which is then "
            "1 whatever the network does: give it two, 0 and this one."
        )
    if recipe.model.classes and len(recipe.model.classes) != count:
        raise ArgumentError(
            f"`model.classes` has {len(recipe.model.classes)} names, {recipe.model.name} {count} classes: give one for "
            "each."
        )
    return own if len(own) == count else class_names(count)


def _move(plan: Plan, recipe: Recipe, device: torch.device) -> None:
    for step in plan.modules():
        step.to(device)
        if recipe.training.channels_last and not recipe.training.shard:  # FSDP2 takes weights in torch's layout only
            step.to(memory_format=torch.channels_last)


def _views(recipe: Recipe, images: ImageSet, phase: Phase, number: int) -> TrainingViews:
    """What phase `number` is trained on; each phase draws its own crops."""
    resize, size = view_sizes(recipe.data)
    seed = recipe.training.seed
    views = TrainingViews(
        images,
        resize=resize,
        size=size,
        augmentation=phase.augmentation,
        seed=seed if number == 0 else phase_seed(seed, number),
        num_views=phase.step.wants.num_views(beside_unlabelled=recipe.labelled.has_unlabelled),
        composite=phase.step.wants.composites,
        boxes=phase.step.wants.boxes,
    )
    views.makes_pixels = phase.step.wants.pixels
    views.check_boxes()
    return views


# --- the images -----------------------------------------------------------------------------------------------------


def _check_images(recipe: Recipe, found: TrainingImages) -> None:
    """Refuse images on which the run would fail after an epoch."""
    images, validation, options, count = found.labelled, found.validation, recipe.training, len(found.labelled.classes)
    if len(images) < options.batch_size:
        raise ArgumentError(
            f"`training.batch_size` {options.batch_size} is larger than the training set, {len(images)} images."
        )
    if len(validation) == 0:
        raise DataError(f"{validation.name} has no images, and a run is validated on them: give it at least one.")
    if list(validation.classes) != list(images.classes):
        raise DataError(f"{validation.name} has other classes than {images.name}: give both the same, in one order.")
    if count < 2 and images.has_labels:
        raise DataError(
            f"{images.name} has {count} class, and the cross-entropy of one class is 0 whatever the network says: give "
            "it at least two."
        )
    if images.has_labels and recipe.model.num_classes not in (None, count):
        raise ArgumentError(
            f"`model.num_classes` is {recipe.model.num_classes}, {images.name} has {count} classes: leave it out."
        )
    asked = recipe.model.classes
    if (
        images.has_labels
        and asked
        and list(asked) != list(images.classes)
        and not library_of(recipe.model.name)[0].reads_words
    ):
        raise ArgumentError(
            f"`model.classes` {' '.join(asked[:5])} ... are not the classes of {images.name}, "
            f"{' '.join(images.classes[:5])} ...: leave it out, or order them with `data.classes`."
        )


# --- the folder -----------------------------------------------------------------------------------------------------


def _open_folder(files: RunFolder, recipe: Recipe, images: TrainingImages, place: Place, console: Console) -> None:
    """Write the recipe, and drop what the logs have of steps that will be done again.

    Sync point: the first process writes; a folder that cannot be written ends all.
    """
    with ranks.together():
        if ranks.rank() == 0:
            for name in recipe.training.loggers:
                logger_class(name)  # before anything is written
            files.path.mkdir(parents=True, exist_ok=True)
            write_json(files.path / "recipe.json", recipe)
            if (draw := draw_of(images.labelled)) is not None:
                draw.write(files.path)
            files.log.rewind(step=place.step, epoch=place.epoch)
            files.timing.rewind(epoch=place.epoch)
            files.loggers.begin(recipe.training.loggers, files.path, recipe, place.step, console)
            _report_skipped(files.path, [one for one in images if one is not None], console)
    files.saved_at = time.monotonic()


def _report_skipped(folder: Path, splits: Sequence[ImageSet], console: Console) -> None:
    """Count and list the unreadable images that were left out."""
    skipped = {images.name: list(images.skipped) for images in splits if images.skipped}
    if skipped:
        write_json(folder / SKIPPED, skipped)
    for name, faults in skipped.items():
        lines = [f"unreadable images left out of {name}: {len(faults)}, listed in {folder / SKIPPED}", *faults[:5]]
        say(console, "\n  ".join(lines))
