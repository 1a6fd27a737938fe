"""Why a picture is one class, in one call: from files, PIL images or arrays to an explanation that shows itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from contrex.data.files.images import read_image, rgb_image
from contrex.data.views.squares import central_square, pixels
from contrex.errors import ArgumentError
from contrex.explain import Explainer, Explanation
from contrex.explain.asked import Targets
from contrex.explain.expected import ExpectedExplanation
from contrex.explain.named import build_explainer
from contrex.explain.picture import Photo, Source
from contrex.models import Classifier, beside, class_names, eval_mode, load_classifier, model_logits
from contrex.models.beside import Inputs
from contrex.models.classes import by_name
from contrex.models.outputs import read_by
from contrex.models.own import INTERPOLATIONS, View, own_classifier
from contrex.ops import scores
from contrex.ops.scores import Contrast
from contrex.settings import Model

Picture = str | os.PathLike[str] | Image.Image | NDArray[Any]
"""A file, an image of Pillow, or an array [H,W], [H,W,1], [H,W,3] or [H,W,4], uint8 or in [0, 1]."""


class Shown(View, total=False):
    """How a picture is shown to a network: the view, and what the network gets beside it."""

    inputs: Inputs | None


def load(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    classes: Sequence[str] = (),
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    **options: Any,
) -> Classifier:
    """Build a classifier by name: a network, and how it sees pictures. Explainers and `why` take it.

        contrex.load("timm:resnet50", pretrained=True)
        contrex.load("open_clip:ViT-B-32", pretrained=True, classes=["a tabby", "a tiger cat"])

    Args:
        name: `torchvision:NAME`, `timm:NAME`, `hf:NAME`, `open_clip:NAME` or `contrex:convnet`. NAME.TAG chooses among
            the weights of torchvision, timm and open_clip.
        pretrained: take the library's own weights, with their mean, std, size, interpolation and class names. The
            library downloads them if they are not in its cache. With `weights` they are in that file instead.
        weights: a file with a state_dict.
        num_classes: how many classes the network has; without it the weights tell.
        classes: their names; for models of images and texts, a text for each.
        mean, std: of its input, where nothing says them, or others.
        options: keywords for the library's builder.

    Raises:
        UnknownNameError: no such library or architecture.
        ArgumentError: an option does not fit, or the library is not installed.
        WeightsError: the weights cannot be had, or do not fit.
    """
    told = {key: repr(value) if not isinstance(value, str) else value for key, value in options.items()}
    path = None if weights is None else Path(weights)
    settings = Model(name, told, num_classes=num_classes, weights=path, mean=mean, std=std, pretrained=pretrained,
                     classes=tuple(classes))  # fmt: skip
    return load_classifier(settings)


def why(
    images: Picture | Sequence[Picture],
    classifier: Classifier | nn.Module,
    *,
    explainer: str | Callable[[nn.Module], Explainer] = "grad_cam",
    target: Targets = None,
    contrast: Contrast = None,
    score: str = "logit",
    task: str | None = None,
    **view: Unpack[Shown],
) -> Explanation:
    """Explain why pictures are `target` - and, with a contrast, not another class - to a classifier.

        contrex.why("cat.jpg", classifier, target="tabby", contrast="tiger cat")

    Each picture is made upright RGB, its shorter side resized to `short_side`, and the central square of `size` cut out
    and normalised, as the classifier says or the caller does. The explanation has the squares and the names in it.

    Args:
        images: a file, a Pillow image or an array [H,W,C], uint8 or in [0, 1]; or several, of any sizes.
        classifier: a `contrex.models.Classifier`, or a network. timm's say how they see pictures (that of their own
            weights); of others `size`, `mean` and `std` are asked.
        explainer: its name, with options ("rise(num_masks=500)", "grad_cam(layer='layer3')"), its class, or a function
            that makes one of the network.
        target, contrast, score, task: as in a call of an explainer; classes also by name.
        view: `size`, `short_side`, `mean`, `std`, `interpolation` and `names` where the classifier does not say them,
            or says others; or transformers' `processor`, which says them. Names are ImageNet's for 1000 classes without
            any. `inputs` is as in a call of an explainer.

    Raises:
        ArgumentError: an argument does not fit, or it is not known how the classifier sees pictures.
        ImageError: a picture cannot be read.
    """
    inputs = view.pop("inputs", None)
    if not isinstance(score, str):
        raise ArgumentError("`score` of `why` must be a text, it is about classes: call the explainer, score=f.")
    seen = own_classifier(classifier, **view)
    squares, photos = zip(*[_square(picture, seen) for picture in _listed(images)], strict=True)
    like = next((one for one in seen.network.parameters() if one.is_floating_point()), torch.zeros(()))
    pictures = seen.normalise(torch.stack(squares).to(like.device)).to(like.dtype)
    explain = _explainer(seen.network, explainer)
    with beside.given(inputs, len(pictures)):
        explain.names = seen.names or explain.names or _imagenet_names(explain, pictures)
    found = explain(pictures, target=target, contrast=contrast, score=score, task=task, inputs=inputs)
    if inputs is None:  # what is given beside the pictures is not kept, and without it nothing can be asked again
        photos = tuple(replace(photo, source=Source(explain, seen)) for photo in photos)
    return replace(found, images=photos)


def why_not(
    image: Picture,
    classifier: Classifier | nn.Module,
    expected: str | int,
    *,
    explainer: str | Callable[[nn.Module], Explainer] = "grad_cam",
    score: str = "logit",
    task: str | None = None,
    **view: Unpack[Shown],
) -> ExpectedExplanation:
    """Explain why a picture is not the class that was expected: what `contrex explain --expected` draws.

        contrex.why_not("cat.jpg", classifier, expected="tabby")

    Three questions in one explanation: why the predicted class, why that rather than the expected one, and why the
    expected one rather than that. Where the prediction is the expected class, it is why that class. Arguments and
    errors as in `why`; `expected` is a class by name or index.
    """
    first = why(image, classifier, explainer=explainer, score=score, task=task, **view)
    if len(first) != 1:
        raise ArgumentError(f"`image` must be one picture, got {len(first)}: call why_not for each.")
    named = by_name(expected, first.names, "`expected`")
    index = int(scores.class_indices(named, first.logits, first.task, name="expected"))
    predicted = int(first.target)
    if predicted == index:
        return ExpectedExplanation.of([first], index)
    asked = partial(why, image, classifier, explainer=explainer, score=score, task=task, **view)
    both = [asked(target=target, contrast=other) for target, other in ((predicted, index), (index, predicted))]
    return ExpectedExplanation.of([first, *both], index)


def _explainer(network: nn.Module, explainer: str | Callable[[nn.Module], Explainer]) -> Explainer:
    made = build_explainer(network, explainer) if isinstance(explainer, str) else None
    if made is None and callable(explainer):
        made = explainer(network)
    if isinstance(made, Explainer):
        return made
    raise ArgumentError(f"`explainer` must be a name, or a class or function that makes one; got {explainer!r}.")


def _imagenet_names(explain: Explainer, inputs: Tensor) -> tuple[str, ...]:
    """ImageNet's names for a network of 1000 classes; none otherwise."""
    with eval_mode(explain.model), torch.inference_mode(), read_by(explain.output), beside.about([0]):
        num_classes = model_logits(explain.model, inputs[:1]).shape[1]
    return tuple(class_names(num_classes)) if num_classes == 1000 else ()


def _listed(images: Picture | Sequence[Picture]) -> list[Picture]:
    if isinstance(images, Tensor):
        raise ArgumentError(
            "`images` must be files, Pillow images or arrays, got a tensor, of which nobody knows whether it is "
            "normalised: call the explainer, contrex.GradCAM(network)(images)."
        )
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    listed = list(images) if isinstance(images, (list, tuple)) else [images]
    if not listed:
        raise ArgumentError("`images` is empty: give one picture or more.")
    return listed  # type: ignore[return-value]


def _square(picture: Picture, seen: Classifier) -> tuple[Tensor, Photo]:
    """What the network sees of a picture: its square, uint8 [3,S,S], and as it is kept in the explanation."""
    image, photo = _opened(picture)
    size = seen.image_size or 0
    how = INTERPOLATIONS[seen.interpolation]
    square = central_square(image, resize=seen.short_side or size, size=size, how=how)
    return pixels(square), replace(photo, pixels=np.array(square))


def _opened(picture: Picture) -> tuple[Image.Image, Photo]:
    """A picture as RGB, and where it is from."""
    nothing = np.zeros((0, 0, 3), np.uint8)
    if isinstance(picture, (str, os.PathLike)):
        path = Path(picture)
        image = read_image(path)
        return image, Photo(nothing, path.name, hashlib.sha256(path.read_bytes()).hexdigest(), is_file=True)
    image = rgb_image(picture if isinstance(picture, Image.Image) else _from_array(picture))
    return image, Photo(nothing, "", hashlib.sha256(image.tobytes()).hexdigest())


def _from_array(values: Any) -> Image.Image:
    """The picture in an array [H,W], [H,W,1], [H,W,3] or [H,W,4], uint8 or floating point in [0, 1]."""
    if not isinstance(values, np.ndarray):
        raise ArgumentError(f"`images` must be files, Pillow images or arrays, got {type(values).__name__}.")
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        raise ArgumentError(
            f"`images` must be arrays [H,W] or [H,W,C] of 1, 3 or 4 channels, got {list(values.shape)}: channels are "
            "last, `array.transpose(1, 2, 0)`."
        )
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    values = np.asarray(values)
    if np.issubdtype(values.dtype, np.floating):
        if not (values.size and values.min() >= 0 and values.max() <= 1):
            raise ArgumentError(
                "`images` of floating point must be in [0, 1], finite and not normalised: pass uint8, or divide by 255."
            )
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ArgumentError(f"`images` must be uint8, or floating point in [0, 1]; got {values.dtype}.")
    return Image.fromarray(np.ascontiguousarray(values))
