"""Ablation-CAM (Desai and Ramaswamy, WACV 2020)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.explain.activation.closed_form import LinearHead
from contrex.explain.explainer import LayerExplainer
from contrex.explain.forward import capture
from contrex.explain.forward.capture import FULL_PRECISION, Features, Pass
from contrex.explain.options import About
from contrex.explain.perturbation.explainer import at_once, check_alone, checked_batch_size
from contrex.models.beside import about
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape
from contrex.ops.scores import Question, weighed


class AblationCAM(LayerExplainer):
    """`sum_c w_c A_c` with `w_c = S - S_c`: how far the score falls when channel c is set to zero (section 3).

    Nothing but the first forward pass is needed where global average pooling and one linear layer follow: there channel
    c takes `W_kc mean(A_c)` from logit k. Elsewhere there is one ablation per image and channel that is not zero
    already, in chunks of `batch_size` (None chooses by device), for any number of classes. What lies before the layer
    runs for one image per chunk if the network broadcasts it, else for each ablation.

    Deviation: the paper divides the weight by S. That is one number per map, so no picture of a class changes where
    S > 0; but the map is turned over where S < 0, blows up near 0, and depends on what all logits have in common.
    Without it the weight is linear in the score, and a contrast is one map.

    Raises:
        ArgumentError: `batch_size` is less than 1.
    """

    name = "ablation_cam"
    is_differentiable = False
    ranks = (1, 2, 3)

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        batch_size: int | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        self._batch_size = checked_batch_size(batch_size)
        self._head = LinearHead(self.model)
        self._broadcasts = True

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        (features,) = run.features
        linear = self._head.linear(run, features, question.cotangents(run.logits))
        activation = features.maps(features.output).detach().to(run.logits.dtype)
        with torch.no_grad():
            if linear is not None:
                falls = _closed_form(linear, run.logits, activation, question)
            else:
                falls = self._ablations(run, features, activation, question)
            weights = torch.stack([_weights(rows, fall) for rows, fall in zip(question.rows, falls, strict=True)])
            with torch.autocast(activation.device.type, enabled=False):
                return torch.einsum("nmc,nchw->nmhw", weights, activation)

    def _ablations(self, run: Pass, features: Features, activation: Tensor, question: Question) -> Iterator[Tensor]:
        """`f(y) - f(y_c)` `[C,Z]` of each image. The unchanged activation goes along in every chunk, so that what the
        batch does to the rounding of both is the same."""
        check_alone(self.model, run)
        places, num = _places(features), at_once(self._batch_size, run.images.device)
        for n, output in enumerate(features.output.detach()):
            falls = run.logits.new_zeros(activation.shape[1], question.rows.shape[2])
            # Waits for the device once for each image; behind a ReLU many channels are zero, and each would cost a
            # pass.
            alive = activation[n].flatten(1).any(1).nonzero()[:, 0]
            for channels in torch.split(alive, num):
                changed = output.flatten().repeat(1 + len(channels), 1)
                changed[1:].scatter_(1, places[n, channels], 0)
                logits = self._logits(run, features, n, changed.unflatten(1, output.shape))
                falls[channels] = question.outputs(logits[:1]) - question.outputs(logits[1:])
            yield falls

    def _logits(self, run: Pass, features: Features, n: int, outputs: Tensor) -> Tensor:
        """The logits of image n for several outputs of the layer, the first of which is its own.

        What comes before the layer runs for a single image, where sums with it broadcast; that this changes nothing is
        seen in the logits of the layer's own output. Where it fails every output gets an image.
        """
        assert features.layer is not None
        image = run.images[n : n + 1].detach()
        if self._broadcasts:
            # whatever a network raises whose batch axes do not agree
            with contextlib.suppress(Exception), about(n):
                logits = capture.forward_with(self.model, image, features.layer, outputs, features.run)
                tolerance = 1e-3 if outputs.dtype in FULL_PRECISION else 5e-2
                if torch.allclose(logits[0], run.logits[n], tolerance, tolerance, equal_nan=True):
                    return logits
            self._broadcasts = False
        with about(n):
            copies = image.expand(len(outputs), *image.shape[1:])
            return capture.forward_with(self.model, copies, features.layer, outputs, features.run)


def _places(features: Features) -> Tensor:
    """Where the cells of each channel lie in the layer's flattened output of an image: `[N,C,cells]`."""
    output = features.output
    # Entry numbers, read as the maps are read: so a channel is found in tokens and channels-last outputs too.
    numbers = torch.arange(output[0].numel(), device=output.device).expand(len(output), -1)
    return features.maps(numbers.reshape(output.shape)).flatten(2)


def _closed_form(linear: nn.Linear, logits: Tensor, activation: Tensor, question: Question) -> Iterator[Tensor]:
    """`f(y) - f(y_c)` `[C,Z]` of each image behind global average pooling and `linear`."""
    for y, mean in zip(logits, activation.mean((2, 3)), strict=True):
        yield question.outputs(y) - question.outputs(y - mean[:, None] * linear.weight.mT.to(y.dtype))


def _weights(rows: Tensor, falls: Tensor) -> Tensor:
    """The weight of each channel, `[M,C]`, of outputs `[M,Z]` and `[C,Z]`."""
    with torch.autocast(rows.device.type, enabled=False):
        return weighed(rows, falls)
