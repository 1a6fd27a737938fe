"""Score-CAM (Wang et al., CVPR Workshops 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Unpack
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from contrex.errors import unknown_name
from contrex.explain.explainer import LayerExplainer
from contrex.explain.forward.capture import Pass
from contrex.explain.options import About
from contrex.explain.perturbation.explainer import at_once, check_alone, checked_batch_size, outputs_of
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape, Site
from contrex.ops import heatmap as heatmaps
from contrex.ops.scores import Question, weighed
from contrex.settings import Variant

VARIANTS = ("paper", "published-code")


class ScoreCAM(LayerExplainer):
    """`sum_c w_c A_c` with `w = softmax_c(S(x * M_c) - S(x_b))`, where `M_c` is `A_c` upsampled to the image and
    stretched to [0, 1] (section 3, algorithm 1).

    A channel weighs as much as the score it leaves when it masks the image: C forward passes per image, in chunks of
    `batch_size` images (None chooses by device), for any number of classes. The baseline `x_b`, an image of zeros,
    needs none: a softmax does not see what is subtracted from every channel.

    `variant="published-code"` takes `w_c = S(x * M_c)`, without the softmax over channels. The paper's experiments and
    its code have S = `score="probability"`; the default is the logit, as for every method.

    Deviations: a constant channel leaves an image of zeros; the published code skips it. The map is signed.

    Raises:
        UnknownNameError: `variant` is not one of the two.
        ArgumentError: `batch_size` is less than 1.
    """

    name = "score_cam"
    is_linear = False
    is_differentiable = False
    ranks = (1, 2, 3)

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        batch_size: int | None = None,
        variant: Variant = "paper",
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        if variant not in VARIANTS:
            raise unknown_name("`variant`", variant, VARIANTS)
        self._batch_size = checked_batch_size(batch_size)
        self._variant = variant
        # By the pass, held weakly: forgotten when the call is over.
        self._outputs: WeakKeyDictionary[Pass, Tensor] = WeakKeyDictionary()

    def _run(self, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
        return super()._run(images, layers, graph="none")

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        (features,) = run.features
        activation = features.maps(features.output).detach().to(run.logits.dtype)
        if run not in self._outputs:  # every question about one pass is answered by the same masked images
            check_alone(self.model, run)
            maps = features.unflattened(activation)
            masked = outputs_of(self.model, self._masked(run.images.detach(), maps), question)
            self._outputs[run] = torch.cat(list(masked)).reshape(*activation.shape[:2], -1)  # [N,C,Z]
        with torch.autocast(activation.device.type, enabled=False):
            weights = weighed(question.rows, self._outputs[run])
            weights = weights.softmax(2) if self._variant == "paper" else weights
            return torch.einsum("nmc,nchw->nmhw", weights, activation)

    def _masked(self, images: Tensor, activation: Tensor) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Every image times every channel's mask, N * C images in all, a chunk at a time beside the images' places."""
        size, num = tuple(images.shape[2:]), at_once(self._batch_size, images.device)
        owners = torch.arange(len(images), device=images.device).repeat_interleave(activation.shape[1])
        listed = [n for n in range(len(images)) for _ in range(activation.shape[1])]  # on the CPU: nothing waits
        chunks = zip(torch.split(owners, num), torch.split(activation.flatten(0, 1), num), strict=True)
        for start, (owner, channels) in zip(range(0, len(listed), num), chunks, strict=True):
            places = listed[start : start + num]
            masks = heatmaps.normalise_min_max(heatmaps.resize(channels, size))
            yield places, images[owner] * masks[:, None].to(images)
