"""The zero of the maps of classes: evidence that all classes have alike is evidence for none, and is taken off.

Where the last feature map A is averaged over its cells i and a linear layer follows, the logit of class c is the mean
of its map:

    z_c = mean_i (w_c . A_i) + b_c

Take any vector v off the weights of all classes. Each logit falls by v . mean_i A_i, the same number for all, so every
probability stays as it is, and so does every map of one class against others. The map of a class alone does not: it is
(w_c - v) . A_i now. What the network predicts does not say where the zero of such a map lies, and training leaves it
where it happens to be (Srinivas and Fleuret, ICLR 2021, section 3, say the same of gradients of logits).

Here v = a u. The vector u gives as nearly 1 in every cell as a vector can (least squares over photos without labels),
so that the zero moves in all cells alike; and a is the smallest number with nine tenths of what the consistency loss of
the maps of predicted classes (Pillai et al., CVPR 2022, eq. 1) can fall, as long as almost no map loses all that is
positive.

What it does not do: the order of cells hardly changes, so the pointing game does not gain. Maps become smaller, and
metrics that reward small maps rise; compare networks at equal spread.

Legend: N photos, C channels, h w cells.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from contrex.data import image_set
from contrex.data.views.batch import Batch
from contrex.data.views.squares import view_sizes
from contrex.data.views.training import TrainingViews
from contrex.errors import ArgumentError, LayerError
from contrex.explain.forward.capture import watched
from contrex.explain.named import build_explainer
from contrex.losses import cgc_loss
from contrex.methods.step import explained_layer
from contrex.models import Classifier, classifier_heads, eval_mode, model_logits
from contrex.ops.geometry import Crop
from contrex.ops.likeness import differ
from contrex.settings import Recipe, Retrofit

NUM_PHOTOS = 256
"""Photos that it is looked for on, at most; of each the plain one and one view."""

CHUNK = 32
"""Photos that go through the network at once."""

TRIED = torch.linspace(0, 1.5, 31)
"""Sizes that are tried, in shares of the mean evidence of a cell."""

GAIN = 0.9
"""How much of what the consistency loss can fall is enough: near its minimum it is flat, and maps are nearly empty."""

EMPTY = 0.005
"""The share of the photos whose maps may lose all that is positive."""

RIDGE = 1e-2
"""Added to the diagonal of the least squares, in shares of its mean, so that u does not follow single photos."""


@dataclass(frozen=True, eq=False)
class Offset:
    """What is taken off the evidence of all classes alike: `vector` [C], off each row of the linear layer `head`.

    `share` is its size, in shares of the mean evidence of a cell for the predicted class; `consistency` the consistency
    loss of the maps without and with it, and `num_photos` what both were computed on.
    """

    head: str
    vector: Tensor
    share: float
    consistency: tuple[float, float]
    num_photos: int

    def taken_off(self, classifier: Classifier) -> Classifier:
        """A copy of the classifier that it is taken off: other logits, the same probabilities."""
        other = copy.deepcopy(classifier)
        weight = other.network.get_submodule(self.head).weight
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            weight -= self.vector.to(weight)
        return other

    def line(self) -> str:
        """What it is, in a sentence."""
        before, after = self.consistency
        return (
            f"offset: {self.share:.0%} of the mean evidence of a cell, off all classes alike; no probability changes "
            f"(consistency loss {before:.3f} to {after:.3f} on {self.num_photos} photos)"
        )


def find_offset(
    classifier: Classifier, recipe: Recipe, *, share: float | None, device: torch.device, num_photos: int = NUM_PHOTOS
) -> Offset:
    """Find the offset of a network on the photos of a retrofit's recipe.

    Args:
        classifier: a trained network; it is left as it was.
        recipe: a retrofit, with its photos.
        share: the size, in shares of the mean evidence of a cell for the predicted class; None looks for it.
        device: where the network runs.
        num_photos: how many photos it is found on, at most.

    Raises:
        ArgumentError: there is none, as the explained map is not averaged and followed by one linear layer of two or
            more classes, or the mean evidence is not above 0.
    """
    method = recipe.method
    assert isinstance(method, Retrofit)
    looked = replace(classifier, network=copy.deepcopy(classifier.network).to(device))
    head = _head(looked.network)
    resize, size = view_sizes(recipe.data)
    images = image_set(recipe.data, "train")
    views = TrainingViews(images, resize=resize, size=size, augmentation=recipe.augmentation, seed=recipe.training.seed)
    chosen = views.order(0)[:num_photos]
    chunks = [slice(start, start + CHUNK) for start in range(0, len(chosen), CHUNK)]
    seen = [_seen(looked, method, head, Batch.join([views[0, place] for place in chosen[at]]), device) for at in chunks]
    even = _even(torch.cat([one.plain for one in seen]))
    mean = sum(float(one.evidence()[0].sum()) for one in seen)
    if mean <= 0:
        raise ArgumentError(
            "`offset` lowers the evidence of a cell, and its mean for the predicted classes is not above 0 here: set "
            "it to 0."
        )
    unit = mean / sum(float(one.common(even)[0].sum()) for one in seen)

    def loss(share: float, allowed: float = 1.0) -> float:
        losses, empty = [], 0
        for one in seen:
            plain, view = (
                own - share * unit * common for own, common in zip(one.evidence(), one.common(even), strict=True)
            )
            empty += int((plain.amax((1, 2)) <= 0).sum())
            options = {"temperature": method.temperature, "size": method.resolution, "variant": method.variant}
            losses.append(cgc_loss(plain, view, one.crop, **options) * len(plain))  # type: ignore[arg-type]
        return float(torch.stack(losses).sum()) / len(chosen) if empty <= allowed * len(chosen) else math.inf

    if share is None:
        losses = [loss(0.0), *(loss(share, EMPTY) for share in TRIED.tolist()[1:])]
        enough = losses[0] - GAIN * (losses[0] - min(losses))
        share = next(share for share, value in zip(TRIED.tolist(), losses, strict=True) if value <= enough)
    return Offset(head, share * unit * even, share, (loss(0.0), loss(share)), len(chosen))


@dataclass(frozen=True, eq=False)
class _Seen:
    """The last feature maps `[N,C,h,w]` of photos and of one view each, and the weights `[N,C]` of their classes."""

    plain: Tensor
    view: Tensor
    weights: Tensor
    crop: Crop

    def evidence(self) -> tuple[Tensor, Tensor]:
        """The maps `[N,h,w]` of the predicted classes, of the photos and of the views."""
        return _products("nc,nchw->nhw", self.weights, self.plain, self.view)

    def common(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """What a vector [C] gives in each cell."""
        return _products("c,nchw->nhw", vector, self.plain, self.view)


def _products(which: str, vectors: Tensor, plain: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    return torch.einsum(which, vectors, plain), torch.einsum(which, vectors, view)


def _head(network: nn.Module) -> str:
    """The name of the only linear classifier."""
    try:
        heads = classifier_heads(network)
    except LayerError:
        name = type(network).__name__
        raise ArgumentError(
            f"`offset` is taken off a linear layer at the end, and {name} ends otherwise: set it to 0."
        ) from None
    if len(heads) != 1:
        raise ArgumentError(f"`offset` is taken off one linear layer, and this network ends in {len(heads)}.")
    ((name, linear),) = heads.items()
    if linear.out_features == 1:
        raise ArgumentError(
            "`offset` leaves the probabilities of a softmax as they are, and this network has one logit."
        )
    return name


def _seen(classifier: Classifier, method: Retrofit, head: str, batch: Batch, device: torch.device) -> _Seen:
    """Run the network on the photos and views of a batch, and keep what an offset is found from."""
    crop, batch = batch.views[0].crop, batch.to(device)
    images = classifier.normalise(torch.cat([batch.images, batch.views[0].made()]))
    explainer = build_explainer(classifier.network, method.explainer, method.layer)
    layer, outputs = explained_layer(explainer, images[:2]), list[object]()
    with (
        eval_mode(classifier.network),
        torch.inference_mode(),
        watched([layer], lambda _, output: outputs.append(output)),
    ):
        logits = model_logits(classifier.network, images)
    linear = classifier.network.get_submodule(head)
    assert isinstance(linear, nn.Linear)
    (features,) = outputs
    if not isinstance(features, Tensor) or not _is_mean(features, linear, logits):
        raise ArgumentError(
            "`offset` needs a network that averages its last feature map and goes on with a linear layer, and this one "
            "does something else between the explained layer and its logits: set it to 0."
        )
    features, num = features.float().cpu(), len(batch)
    weights = linear.weight[logits[:num].argmax(1)].detach().float().cpu()
    return _Seen(features[:num], features[num:], weights, crop)


def _is_mean(features: Tensor, linear: nn.Linear, logits: Tensor) -> bool:
    """Whether the linear layer makes the logits from the mean of the feature map over its cells."""
    if features.ndim != 4 or features.shape[1] != linear.in_features or logits.shape[1] != linear.out_features:
        return False
    expected = linear(features.mean((2, 3)))
    return not bool(differ(expected.flatten(), logits.flatten(), 1e-3))


def _even(features: Tensor) -> Tensor:
    """The vector u [C] for which u . A_i is nearest to 1 in all cells."""
    cells = features.permute(0, 2, 3, 1).flatten(0, 2).double()  # some feature maps are nearly copies of others
    squares = cells.T @ cells / len(cells)
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype)
    even: Tensor = torch.linalg.solve(squares + ridge, cells.mean(0)).float()
    return even
