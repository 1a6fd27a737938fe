"""What is asked for: a network, photos, images to measure on; and what is refused before the work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from contrex.data import image_set
from contrex.data.files.copies import content_keys
from contrex.data.sample import ImageSet
from contrex.devices import device_named
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import check_names
from contrex.models import Classifier, eval_mode, load_classifier, model_logits
from contrex.models.classes import check_order
from contrex.settings import Data, Evaluation, Recipe, Retrofit, UnlabelledPhotos
from contrex.settings.ranges import check


@dataclass(frozen=True)
class Order:
    """A retrofit: the recipe of its run, which has the network with its weights and the photos, and how it is measured
    before and after on `evaluate_on`, images with labels, where there are some.

    `offset` is what is taken off the evidence of all classes alike after the training, in shares of the mean evidence
    of a cell (`contrex.retrofit.offset`); 0 takes nothing off, None looks for it, where the network has one.
    """

    recipe: Recipe
    evaluate_on: Data | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    offset: float | None = 0.0

    @property
    def photos(self) -> UnlabelledPhotos:
        """The photos that it is trained and validated on."""
        assert isinstance(self.recipe.data, UnlabelledPhotos)
        return self.recipe.data

    @property
    def method(self) -> Retrofit:
        """How it is trained."""
        assert isinstance(self.recipe.method, Retrofit)
        return self.recipe.method

    def check(self) -> Classifier:
        """Refuse what would fail after the work; return the network as it is.

        Raises:
            ArgumentError: there are no weights, or a part of the network has none; too few photos for a batch; a
                negative offset.
            DataError: the images to measure on have other classes, no labels, or are among the photos.
        """
        recipe = self.recipe
        check(self.offset is None or 0 <= self.offset < math.inf, "offset", self.offset, "0 or more, or None")
        if recipe.model.weights is None:
            raise ArgumentError("`model.weights` is needed: a retrofit keeps what a trained network knows.")
        if recipe.model.fresh:
            raise ArgumentError(
                f"`model.fresh` {' '.join(recipe.model.fresh)} begins at random weights, and a retrofit keeps what a "
                "trained network knows: train it first, and name the run."
            )
        device_named(recipe.training.device)
        num, size = len(image_set(self.photos, "train")), recipe.training.batch_size
        if num < size:
            raise ArgumentError(
                f"`training.batch_size` {size} is larger than the {num} photos that are not kept out: give more "
                f"`images`, or set it to {num} or less."
            )
        classifier = load_classifier(recipe.model)
        if self.evaluate_on is not None:
            self._check_measured(self.evaluate_on, classifier)
        return classifier

    def _check_apart(self, images: ImageSet, place: Path) -> None:
        """Refuse images to measure on, of a data set at `place`, that are among the photos."""
        folders, photos = (self.photos.path, *self.photos.further), self.photos
        shared = next(filter(None, (first_below(folder, images, place) for folder in folders)), "")
        if not shared:
            every = (image_set(photos, split) for split in ("train", "val"))
            files = [photos.path / own.path(index) for own in every for index in range(len(own))]
            shared = among(images, place, files)
        if shared:
            raise DataError(
                f"`evaluate_on` {place} and `images` {' '.join(map(str, folders))} have images in common, {shared}: "
                "measure on images that are not trained on."
            )

    def _check_measured(self, data: Data, classifier: Classifier) -> None:
        check_names(self.evaluation)
        if len(self.evaluation.of_each_explainer()) > 1:
            raise ArgumentError("`explainers` names several, and a retrofit is measured with one: give --explainer.")
        if self.evaluation.checkpoint != "last":
            raise ArgumentError(f"`checkpoint` {self.evaluation.checkpoint} is for runs, and files are measured here.")
        images: ImageSet = image_set(data, self.evaluation.split)
        if data.location is not None:
            self._check_apart(images, data.location)
        if not images.has_labels:
            raise DataError(f"`evaluate_on`: {images.name} has no labels, and an evaluation needs them.")
        num = num_classes(classifier, self.recipe)
        if len(images.classes) != num:
            raise DataError(
                f"`evaluate_on`: {images.name} has {len(images.classes)} classes, the network {num}: give the folder a "
                "labels.csv with the network's class indices and a classes.txt with its names."
            )
        check_order(classifier.names or (), images.classes, f"`evaluate_on`: {images.name}")
        check_names(self.evaluation, num)
        if self.evaluation.content_heatmap_protocol != "square" and not _takes_whole_images(
            classifier, data.image_size
        ):
            raise ArgumentError(
                f"`evaluate_on`: {self.recipe.model.name} takes squares only, and whole images are measured: add "
                "--content-heatmap-protocol square."
            )


def among(images: ImageSet, place: Path, files: Sequence[Path]) -> str:
    """The path of the first image of a data set at `place` whose content one of `files` has, as a copy or by a link; ""
    where none is."""
    own = [path for path in map(images.path, range(len(images))) if (place / path).is_file()]
    keys = content_keys([*files, *(place / path for path in own)])
    others = set(keys[: len(files)])
    return next((path for path, key in zip(own, keys[len(files) :], strict=True) if key in others), "")


def num_classes(classifier: Classifier, recipe: Recipe) -> int:
    """The number of classes that a network tells apart, by its logits for one image."""
    from contrex.training.preparing import names_of_classes

    return len(names_of_classes(classifier, recipe))


def with_photos(recipe: Recipe, folders: tuple[Path, ...], **changes: object) -> Recipe:
    """A recipe of a retrofit with the photos of `folders`.

    Raises:
        ArgumentError: there is none.
    """
    if not folders:
        raise ArgumentError("`images` names no folder with photos: contrex retrofit ... --images FOLDER")
    assert isinstance(recipe.data, UnlabelledPhotos)
    data = replace(recipe.data, path=folders[0], further=folders[1:], **changes)  # type: ignore[arg-type]
    return replace(recipe, data=data)


def _takes_whole_images(classifier: Classifier, side: int) -> bool:
    """Whether a network takes an image that is no square."""
    try:
        with eval_mode(classifier.network), torch.no_grad():
            model_logits(classifier.network, classifier.normalise(torch.zeros(1, 3, side, side + side // 4)))
    except (AssertionError, RuntimeError):  # as an evaluation would meet it
        return False
    return True


def first_below(folder: Path, images: ImageSet, place: Path) -> str:
    """The path of the first image of a data set at `place` that lies below a folder; "" where none does."""
    folder, place = folder.resolve(), place.resolve()
    if place.is_relative_to(folder):
        return images.path(0)
    if not folder.is_relative_to(place):
        return ""
    below = ((path, place / path) for path in map(images.path, range(len(images))))
    # what is no file of its own, as in an archive, may be anywhere below
    return next((path for path, file in below if file.is_relative_to(folder) or not file.exists()), "")
