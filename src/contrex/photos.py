"""Explaining single photos: from image files to a picture and the classes behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from contrex.data.images import read_image
from contrex.data.tables import read_classes
from contrex.data.views import pixels, short_side
from contrex.errors import ArgumentError
from contrex.evaluation import build_explainer
from contrex.explain import Explanation
from contrex.explain.figure import Row, draw, pictures
from contrex.models import Classifier, class_index, class_names, load_classifier
from contrex.ops.scores import CONTRASTS
from contrex.settings import Model
from contrex.training import load_trained


@dataclass(frozen=True, eq=False)
class PhotoExplanation:
    """One photo: its image [1,3,H,W] in [0, 1], its explanation, and the words for what was asked and answered."""

    path: Path
    image: Tensor
    explanation: Explanation
    question: str
    top: Sequence[tuple[str, float]]
    """The most probable classes, by name, with their probabilities."""


@dataclass(frozen=True, eq=False)
class NamedClassifier:
    """A classifier whose classes have names; empty `names` become ImageNet's, or indices, at the first prediction."""

    classifier: Classifier
    names: Sequence[str]


def classifier_of(run: Path | None, model: Model, classes: Path | None) -> NamedClassifier:
    """The classifier of a trained run, or of a weights file."""
    names = [name for _, name in read_classes(classes)] if classes is not None else ()
    if run is not None:
        _, classifier, own_names = load_trained(run)
        return NamedClassifier(classifier, names or own_names)
    if model.weights is None:
        raise ArgumentError("`model.weights` is needed: an untrained network explains nothing. Or pass --run.")
    return NamedClassifier(load_classifier(model), names)


def explain_photos(
    paths: Sequence[Path],
    named: NamedClassifier,
    *,
    explainer: str,
    layer: str | None,
    target: str | None,
    contrast: str | None,
    side: int,
    num_top: int = 5,
) -> list[PhotoExplanation]:
    """Explain each photo on its own, whole, its shorter side resized to `side` pixels.

    `target` and `contrast` are class names or indices; `contrast` may also be mean, max or weighted.
    """
    network = named.classifier.network.eval()
    explain = build_explainer(network, explainer, layer)
    results = []
    for path in paths:
        image = pixels(short_side(read_image(path), side))[None] / 255
        inputs = named.classifier.normalise(image)
        with torch.inference_mode():
            probs = network(inputs).float().softmax(1)[0]
        names = _names(named, len(probs))
        wanted = None if target is None else class_index(target, names)
        foil = (
            contrast if contrast in CONTRASTS or contrast is None else class_index(contrast, names, what="`contrast`")
        )
        why = explain(inputs, target=wanted, contrast=foil)
        top = [(names[int(index)], float(probs[index])) for index in probs.argsort(descending=True)[:num_top]]
        question = _question(names[int(why.target)], foil if foil is None or isinstance(foil, str) else names[foil])
        results.append(PhotoExplanation(path, image, why, question, top))
    return results


def save_picture(results: Sequence[PhotoExplanation], output: Path) -> None:
    """All photos and their maps in one picture; its suffix is the format."""
    rows = [
        Row(pictures(r.image, (0.0,), (1.0,))[0], r.explanation.heatmap[0], f"{r.path.name}\n{_answer(r)}", r.question)
        for r in results
    ]
    figure = draw(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(output, dpi=150)
    except ValueError as error:
        raise ArgumentError(f"`output` {output} has no picture format: {error}") from None


def _names(named: NamedClassifier, num_classes: int) -> Sequence[str]:
    names = named.names or class_names(num_classes)
    if len(names) != num_classes:
        raise ArgumentError(f"`classes` has {len(names)} names, the classifier {num_classes} classes: pass its own.")
    return names


def _question(target: str, contrast: str | None) -> str:
    if contrast is None:
        return f"why {target}?"
    against = f"and not the others ({contrast})" if contrast in CONTRASTS else f"rather than {contrast}"
    return f"why {target} {against}?"


def _answer(result: PhotoExplanation) -> str:
    return ", ".join(f"{name} {probability:.0%}" for name, probability in result.top[:2])
