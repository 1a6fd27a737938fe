"""The page of an explanation that is at hand: `why.explore()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import nn

from contrex.errors import ArgumentError
from contrex.explain.explainer import Explainer, LayerExplainer
from contrex.explain.explorer.answers import Asked, answers
from contrex.explain.explorer.class_maps import ClassMaps
from contrex.explain.explorer.content import VIEWS, WHOLE, Content, Explored, Model, Start
from contrex.explain.explorer.page import ExplorerPage
from contrex.explain.named import build_explainer
from contrex.explain.picture import Source
from contrex.models import Classifier
from contrex.models.own import own_classifier
from contrex.ops import scores
from contrex.settings.contrast import read_contrast

if TYPE_CHECKING:
    from contrex.explain.explanation import ClassExplanations, Explanation

PYTHON = """\
import contrex


def ask(target, contrast):  # of the classifier that the page was made with
    return contrex.why({photo}, classifier, explainer={explainer}, target=target, contrast=contrast)


why = ask({target}, {contrast})"""


def page_of(
    why: Explanation | ClassExplanations, classifier: Classifier | nn.Module | None, height: int
) -> ExplorerPage:
    """The page of the pictures of an explanation; arguments and errors as in `Explanation.explore`."""
    if not why.images:
        raise ArgumentError(
            "`explore` draws on pictures, and this explanation has none: add them, why.on(images, mean=..., std=...)."
        )
    if why.score != "logit":
        told = (
            "of classes, and this is of their {}"
            if why.score in scores.SCORES
            else "of whole pictures, and this is of {}"
        )
        raise ArgumentError(f"`explore` asks about logits {told.format(why.score)}: show it, or ask without `score`.")
    given = None if classifier is None else _source(why, classifier)
    sources = [source for photo in why.images if (source := given or photo.source) is not None]
    if len(sources) < len(why.images):
        pictures = [Explored(photo, [WHOLE], [[[_own_maps(why, index)]]]) for index, photo in enumerate(why.images)]
        model, methods = Model("the network"), [why.explainer]
    else:
        pictures = [
            Explored(photo, VIEWS, _asked_again(why, index, source))
            for index, (photo, source) in enumerate(zip(why.images, sources, strict=True))
        ]
        model, methods = Model(type(sources[0].classifier.network).__name__, PYTHON), [_in_text(sources[0].explainer)]
    return ExplorerPage(Content([model], pictures, methods, start=_start(why)), height)


def _source(why: Explanation | ClassExplanations, classifier: Classifier | nn.Module) -> Source:
    """The explainer of an explanation, made again of its classifier."""
    mean, std = (getattr(classifier, name, None) for name in ("mean", "std"))
    size = why.images[0].pixels.shape[0]
    seen = own_classifier(classifier, size=size, mean=mean, std=std)
    explain = build_explainer(seen.network, why.explainer, None if "fuse" in why.options else why.layer)
    explain.names = tuple(why.names)
    return Source(explain, seen)


def _in_text(explain: Explainer) -> str:
    """An explainer in the text that names it, with its layer."""
    name = explain.configured[0]
    if not isinstance(explain, LayerExplainer) or explain.layer is None or explain.fuse is not None:
        return name
    return f"{name[:-1]}, layer={explain.layer!r})" if name.endswith(")") else f"{name}(layer={explain.layer!r})"


def _asked_again(why: Explanation | ClassExplanations, index: int, source: Source) -> list[list[list[ClassMaps]]]:
    """The maps of an image that the network is asked for again, of those classes first that were explained."""
    first = [int(column.target[index]) for column in why.columns()]
    asked = Asked(source.classifier, [source.explainer], Image.fromarray(why.images[index].pixels))
    return answers([asked], task=why.task, first=first)


def _own_maps(why: Explanation | ClassExplanations, index: int) -> ClassMaps:
    """The maps that an explanation has of an image, without asking the network again."""
    from contrex.explain.explanation import ClassExplanations

    if not isinstance(why, ClassExplanations) or why.contrast is not None or why.target.shape[1] < 2:
        raise ArgumentError(
            "`explore` asks about several classes, and this explanation has the map of one question: pass the "
            "classifier, why.explore(classifier), or ask for more classes, explainer.classes(images, k=10).explore()."
        )
    one = why[index]
    logits = scores.class_logits(one.logits.detach(), one.task)[0].float().cpu().numpy()
    maps = one.heatmap[0].detach().float().cpu().numpy()
    classes = one.target[0].tolist()
    rest = np.zeros((0, *maps.shape[1:]), np.float32)
    about = one.explanation(0)
    return ClassMaps(maps, rest, classes, logits, about, is_linear=True, is_class_specific=True)


def _start(why: Explanation | ClassExplanations) -> Start:
    """The question that the explanation answers of its images, where it is one."""
    column = why.columns()[0][0]
    foils = column.foils
    same = len(set(why.columns()[0].target.tolist())) == 1
    target = int(column.target) if same else None
    if isinstance(column.contrast, str):
        read = read_contrast(column.contrast)
        if read.name != "nearest":
            return Start(target, read.name, min(read.strength, 1.0))
        # The page has no such contrast: it opens with the same classes, and their weighted contrast.
        return Start(target, foils[0].tolist() if same and foils is not None else None)
    if not same:
        return Start(None)
    return Start(int(column.target), None if foils is None else foils[0].tolist())
