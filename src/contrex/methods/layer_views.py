"""Second views of what a layer gives, in the place of second views of the images.

The transform T is applied to the layer's output, `T(f(x))` in the place of `f(T(x))`: what comes before the layer runs
for the plain images alone, and what comes behind it for both. For a convolution the two are the same where T is a shift
by whole cells; an enlarged crop shows what follows its objects larger and no finer. Heatmaps are compared as those of
images are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, LayerError
from contrex.explain import Explainer
from contrex.explain.forward.capture import undisturbed
from contrex.explain.forward.observed import Observed
from contrex.explain.forward.sites import Sites
from contrex.explain.forward.trunk import any_images, goes_on_from, going_on_with, trunk_end, trunk_output
from contrex.methods.step import asks_as_they_are, explained_layer
from contrex.models import last_stage
from contrex.models.layers import find_layer
from contrex.ops.geometry import Crop, warp_matrices

LAST_STAGE = "last-stage"
"""In `method.view_layer`: the layer before `contrex.models.last_stage`; a module of that name goes first."""


class LayerViews:
    """The views of what the layer `name` of a network gives, which is found with the first images.

    `explainer` has the layer of the heatmaps, which comes behind it.
    """

    def __init__(self, network: nn.Module, name: str, explainer: Explainer) -> None:
        self.network, self.name, self._explainer = network, name, explainer
        self._layer: str | None = None

    def layer(self, images: Tensor) -> str:
        """The layer, looked over with images of the size of normalised `images`.

        Raises:
            UnknownNameError: there is none of that name.
            ArgumentError: the explainer looks at several layers, or at changed copies of the images.
            LayerError: it comes behind the explained layer, gives no maps `[N,C,h,w]`, or is not all that what follows
                sees.
        """
        found = self._found(images)
        if found != self._layer:
            self._check(found, any_images(images))
            self._layer = found
        return found

    @contextlib.contextmanager
    def seen(self, plain: Tensor, crop: Crop) -> Iterator[Tensor]:
        """Images `[N+n,C,H,W]` to call the network with, n those of `crop`: inside, what follows the layer sees the N
        plain images, normalised, and the views of its output for the first n of them."""
        num = len(crop)

        def both(features: Tensor) -> Tensor:
            return torch.cat([features, transformed_features(features[:num], crop)])

        with going_on_with(self.network, self.layer(plain), both, num=len(plain) + num, first=len(plain)):
            yield torch.cat([plain, plain[:num]])

    def _found(self, images: Tensor) -> str:
        """The name of the layer that is meant."""
        if self.name != LAST_STAGE or self.name in dict(self.network.named_modules()):
            return self.name
        if self._layer is not None:
            return self._layer
        explained = explained_layer(self._explainer, images)
        found = trunk_end(self.network, any_images(images), last_stage(self.network), explained)
        if found is None:
            raise LayerError(
                f"`method.view_layer` {self.name}: {type(self.network).__name__} has no layer before its last stage "
                "that everything goes through: name a layer, or leave it out."
            )
        return found

    def _check(self, name: str, images: Tensor) -> None:
        if not asks_as_they_are(self._explainer):
            raise ArgumentError(
                f"`method.view_layer` {name} needs an explainer of one layer, of the images as they are: leave out its "
                "`augment` and `fuse`, or the views of a layer."
            )
        layer, explained = find_layer(self.network, name), explained_layer(self._explainer, images)
        order = [run.module for run in Observed(self.network, images).runs]
        if layer in order and order.index(layer) > order.index(explained):
            raise LayerError(f"`method.view_layer` {name} comes behind the explained layer: name one before it.")
        if not goes_on_from(self.network, images, layer):
            raise LayerError(
                f"`method.view_layer` {name} is not all that what follows it sees: name a layer that everything goes "
                "through, such as a whole block, or leave it out."
            )
        (site,) = Sites(self.network, None).find(images, [name])
        with undisturbed(self.network, images.device):
            output = trunk_output(self.network, images, name)
        maps = site.maps(output)
        if (maps.shape, maps.stride()) != (output.shape, output.stride()):
            raise LayerError(
                f"`method.view_layer` {name} gives {list(output.shape)}, which is no map [N,C,h,w]: its cells cannot "
                "be cropped and mirrored in place. Name a layer that gives one, or leave it out."
            )


def transformed_features(features: Tensor, crop: Crop) -> Tensor:
    """T applied to each channel of a layer's output `[N,C,h,w]`, whose cells lie evenly over the image; same shape."""
    # places in float32 or better: half precision would move cells
    precise = features.new_empty(0, dtype=torch.promote_types(features.dtype, torch.float32))
    rows, columns = warp_matrices(crop, (features.shape[-2], features.shape[-1]), like=precise)
    return rows.to(features.dtype)[:, None] @ features @ columns.to(features.dtype)[:, None].mT
