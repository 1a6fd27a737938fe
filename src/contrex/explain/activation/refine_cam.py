"""RefineCAM (Domeniconi et al., "How to Evaluate and Refine your CAM", ICPR 2026)."""

from __future__ import annotations

from typing import ClassVar

from contrex.explain.activation.grad_cam_plus_plus import GradCAMPlusPlus


class RefineCAM(GradCAMPlusPlus):
    """`prod_l max(L_l, 0) / max L_l`: Grad-CAM++ at several layers, multiplied cell by cell on the finest grid.

    The late layers say where the class is, the early ones draw its outline: noise outside of it is multiplied by 0. It
    is `GradCAMPlusPlus` with the option `fuse="product"`, which other explainers take too. Without names the layers are
    the last that carry the logits in each of the last three resolutions; `fuse="product(layer2, layer4)"` names them.

    Deviations: the map is multiplied by the largest value of the last layer's, so that maps of two classes can be
    subtracted; cells that speak against the class at every layer come out negative. pytorch-grad-cam resizes to the
    image before it multiplies, and stretches the result.

    Raises:
        LayerError: the network has one resolution only, and no layers are named.
    """

    name = "refine_cam"
    ranks: ClassVar[tuple[int, ...]] = (2,)
    default_fuse: ClassVar[str | None] = "product"
