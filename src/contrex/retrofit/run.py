"""Carrying a retrofit out: train, write the weights, measure before and after, put both side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from contrex.data import image_set
from contrex.data.sample import ImageSet
from contrex.devices import device_named
from contrex.errors import ArgumentError
from contrex.evaluation import Subject, evaluate
from contrex.experiment import evaluate_model_by_each
from contrex.experiment.folders import data_name
from contrex.models import Classifier, load_classifier
from contrex.models.layouts import encoder_weights
from contrex.models.weights import read_state_dict
from contrex.records import Gallery, RunRecord, to_plain, write_run
from contrex.report import write_report
from contrex.report.pictures import disagreement
from contrex.retrofit.kept_out import KeptOut
from contrex.retrofit.offset import CHUNK, NUM_PHOTOS, Offset, find_offset
from contrex.retrofit.order import Order
from contrex.settings import Evaluation, Model
from contrex.training import load_trained, train
from contrex.training.checkpoint import Checkpoints

SHOWN = 24
"""How many of the photos kept out are shown, those whose heatmaps changed most."""

FILES = {"trained": "trained", "after": "weights"}
"""The files of the networks, by the names of their records."""

AGREEMENT = "contrex.retrofit.kept_out:Agreement"
"""The protocol by its name in records."""


@dataclass(frozen=True, eq=False)
class Retrofitted:
    """The results of a retrofit: the weights, records before and after, in between without the offset where there is
    one, on the photos kept out and, where some were named, on images with labels, and the pages that show them."""

    weights: Path
    way: float
    """How far the weights have come from the first ones to the trained ones: 1 all of it, less where too many decisions
    had changed, 0 where they are the first ones."""
    kept_out: Sequence[RunRecord]
    report: Path
    measured: Sequence[RunRecord] = ()
    measured_report: Path | None = None


def retrofit(order: Order, folder: Path, *, console: Console, resume: bool = False) -> Retrofitted:
    """Train the run of `order` in `folder`, take the offset off, write the weights, and measure before and after, with
    the offset and without.

    Errors are those of `Order.check`, of `contrex.retrofit.offset.find_offset`, of `contrex.training.train` and of an
    evaluation.
    """
    before, original = order.check(), order.recipe.model
    assert original.weights is not None
    _check_free(folder, original.weights, resume)
    images = image_set(order.photos, "val")  # before the training, as it draws them: photos may come or go meanwhile
    # on the network as it is: what would fail after the training is refused before it
    has_offset = order.offset != 0 and _found_offset(before, order, 0.0, console, num_photos=CHUNK) is not None
    train(order.recipe, folder, resume=resume, console=console)
    _, trained, _ = load_trained(folder)
    way = Checkpoints(folder).load()["place"]["way"]
    networks, models = {"before": before}, {"before": original}
    suffix = original.weights.suffix

    def write(name: str, network: Classifier) -> None:
        models[name] = rewritten(original, write_weights(network, original, folder / f"{FILES[name]}{suffix}"))
        networks[name] = load_classifier(models[name])  # what is measured is what the file holds, in the file's types

    if has_offset:
        write("trained", trained)  # at once: they are there when no offset is found
        hint = f" The weights of the trained network are in {models['trained'].weights}."
        found = _found_offset(trained, order, order.offset, console, hint=hint)
        if found is not None:
            console.print(found.line(), markup=False)
            trained = found.taken_off(trained)
    write("after", trained)
    kept_out = _on_kept_out(order, folder, images, networks, models)
    report = write_report([folder / name for name in networks], folder / "report.html", title="Photos kept out")
    done = Retrofitted(folder / f"{FILES['after']}{suffix}", way, kept_out, report)
    if order.evaluate_on is None:
        return done
    data = data_name(order.evaluate_on)
    measured = {}
    for name, model in models.items():
        ((run, place),) = evaluate_model_by_each(
            model,
            order.evaluate_on,
            order.evaluation,
            console=console,
            name=name,
            classifier=networks[name],
            default=folder / f"{name}-{data}",
        )
        measured[place] = run
    page = write_report(list(measured), folder / f"report-{data}.html", title=f"Before and after, on {data}")
    return replace(done, measured=list(measured.values()), measured_report=page)


def _check_free(folder: Path, original: Path, resume: bool) -> None:
    """Refuse to write over a file that is none of this retrofit's, the old weights above all."""
    for name in FILES.values():
        path = folder / f"{name}{original.suffix}"
        if path.exists() and (not resume or path.samefile(original)):
            raise ArgumentError(f"`folder` {folder} holds {path.name}, which would be written over: choose another.")


def rewritten(original: Model, weights: Path) -> Model:
    """The settings of a network whose file was written anew, in the network's own names."""
    return replace(original, weights=weights, layout="plain")


def _found_offset(
    classifier: Classifier,
    order: Order,
    share: float | None,
    console: Console,
    *,
    num_photos: int = NUM_PHOTOS,
    hint: str = "",
) -> Offset | None:
    """The offset of a network. None where it has none and one was only looked for; where a size was asked for, the
    error ends with `hint`."""
    device = device_named(order.recipe.training.device)
    try:
        return find_offset(classifier, order.recipe, share=share, device=device, num_photos=num_photos)
    except ArgumentError as error:
        if order.offset is not None:
            raise ArgumentError(f"{error}{hint}") from None
        console.print(f"no offset: {error}", markup=False)
        return None


def write_weights(classifier: Classifier, model: Model, path: Path) -> Path:
    """Write the weights of a network to `path` in the form of the file that it came from, `model.weights`: names,
    types, kind of file. A file that has more than the network's own layout becomes one with its names alone."""
    assert model.weights is not None
    before, _ = encoder_weights(read_state_dict(model.weights, model.layout), model.layout)
    own = classifier.network.state_dict()
    state = {name: own[name].to(before[name].dtype).contiguous() for name in before if name in own}
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}")
    _write(state, written, is_safetensors=path.suffix == ".safetensors")
    written.replace(path)
    return path


def _write(state: Mapping[str, Tensor], path: Path, *, is_safetensors: bool) -> None:
    if is_safetensors:
        from safetensors.torch import save_file

        save_file(dict(state), path)
    else:
        torch.save(dict(state), path)


def _on_kept_out(
    order: Order, folder: Path, photos: ImageSet, networks: Mapping[str, Classifier], models: Mapping[str, Model]
) -> list[RunRecord]:
    """Measure the networks, by the names of their records, on the photos kept out, and write the records."""
    recipe, method = order.recipe, order.method
    device = device_named(recipe.training.device)
    for one in networks.values():
        one.network.to(device)
    sure = order.method.sure
    images = KeptOut.by(networks["before"], photos, order.photos, sure=sure, device=device)
    options = Evaluation(
        metrics=(AGREEMENT, "cgc_loss", "spread"),
        explainer=method.explainer,
        layer=method.layer,
        contrast=method.contrast,
        split="val",
        content_heatmap_protocol="square",  # what every network takes; only the pictures go by it
        gallery=len(images),
        device=recipe.training.device,
    )
    runs = [
        evaluate(
            Subject(
                name=name,
                classifier=one,
                images=images,
                data=order.photos,
                augmentation=recipe.augmentation,
                configuration={"model": to_plain(models[name]), "data": to_plain(order.photos)},
                seed=recipe.training.seed,
            ),
            options,
        )
        for name, one in networks.items()
    ]
    runs = largest_changes(runs, SHOWN)
    for run in runs:
        write_run(folder / run.record.name, run)
    return runs


def largest_changes(runs: Sequence[RunRecord], num: int) -> list[RunRecord]:
    """Records of the same images with the `num` pictures whose heatmaps differ most from the first to the last one, the
    most first."""
    galleries = [run.gallery for run in runs if run.gallery is not None]
    if len(galleries) < len(runs):
        return list(runs)
    first, last = galleries[0], galleries[-1]
    sizes = [image.shape[:2] for image in first.images]
    changes = [
        disagreement(one, two, (height, width))
        for one, two, (height, width) in zip(first.heatmaps, last.heatmaps, sizes, strict=True)
    ]
    order = np.argsort(-np.nan_to_num(np.asarray(changes)), kind="stable")[:num].tolist()
    return [replace(run, gallery=_chosen(gallery, order)) for run, gallery in zip(runs, galleries, strict=True)]


def _chosen(gallery: Gallery, order: Sequence[int]) -> Gallery:
    """The pictures at the positions `order`."""
    chosen: dict[str, Any] = {}
    for name, values in vars(gallery).items():
        if isinstance(values, Mapping):
            chosen[name] = {place: values[index] for place, index in enumerate(order) if index in values}
        else:
            chosen[name] = [values[index] for index in order]
    return Gallery(**chosen)


def original_of_run(run: Path, folder: Path) -> tuple[Model, int, int]:
    """Write the network of a run as a file of weights, and return its settings with that file, the side of its square
    and the shorter side of its images."""
    recipe, classifier, classes = load_trained(run)
    path = _original(classifier, folder)
    plain = replace(recipe.model, weights=path, layout="plain", fresh=(), num_classes=len(classes))
    return plain, recipe.data.image_size, recipe.data.short_side


def original_of_library(model: Model, folder: Path) -> tuple[Model, int | None, int | None]:
    """Write a library's own network with its own weights as `original_of_run` does; sizes are those that the library
    says, or None. Weights from a file stay where they are."""
    classifier = load_classifier(model)
    weights = model.weights or _original(classifier, folder)
    return replace(model, weights=weights), classifier.image_size, classifier.short_side


def _original(classifier: Classifier, folder: Path) -> Path:
    path, state = folder / "original.pth", classifier.network.state_dict()
    if path.exists():  # of this retrofit, which is resumed or did not start; or somebody else's
        found = read_state_dict(path)
        if found.keys() != state.keys() or not all(torch.equal(found[name], value) for name, value in state.items()):
            raise ArgumentError(f"`folder` {folder} holds an original.pth with other weights: choose another.")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: value.contiguous() for name, value in state.items()}, path)
    return path
