"""One network of every family of timm and torchvision: which layer is explained, and whether that is right.

    python tests/explain/architectures.py            # writes docs/explainers/architectures.md
    python tests/explain/architectures.py vit swin   # prints the families whose names contain one of these

Nothing of contrex judges contrex here. With the layer's output detached by a hook, the gradient that still reaches the
pixels is the share that flows past. The map is compared with Grad-CAM written out with autograd, whose reading of the
output goes by the grid alone. And whether cells lie where the map says is seen by making a patch of the image white:
the cell there must change more than for any other patch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

import contrex
from contrex.errors import ContrexError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "explainers" / "architectures.md"

_TIMM = """
    beit_base_patch16_224 halonet26t mobileone_s1 repvgg_a0 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32
    convnext_atto cpubone_nano crossvit_9_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny deepseek_vit_412m
    deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small
    efficientformer_l1 efficientformerv2_s0 efficientnet_b0 mobilenetv2_100 efficientvim_m1 efficientvit_b0
    efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m
    ghostnet_050 hardcorenas_b hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small iformer_t inception_next_atto
    inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s lowformer_b0 mambaout_femto
    maxvit_pico_rw_256 coatnet_pico_rw_224 poolformerv2_s12 caformer_s18 gmlp_ti16_224 mixer_s32_224 resmlp_12_224
    mobilenetv3_small_050 mobilenetv5_base mobilevit_xxs mobilevitv2_050 mvitv2_tiny
    naflexvit_base_patch16_parfac_gap nasnetalarge jx_nest_tiny nextvit_small nfnet_l0 pit_ti_224 pnasnet5large
    pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m1 res2net50_26w_4s resnest14d resnet18
    resnet50 resnext50_32x4d resnetv2_18 resnetv2_50 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1
    skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window16_256 swinv2_cr_tiny_224
    tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11_bn visformer_tiny vit_tiny_patch16_224
    vit_base_patch16_siglip_224 vit_small_patch14_reg4_dinov2 vit_tiny_r_s16_p8_224 vit_relpos_small_patch16_224
    samvit_base_patch16_224 vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw legacy_xception xception41p
    xcit_nano_12_p8_224
"""
_TORCHVISION = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
    mobilenet_v2 mobilenet_v3_small regnet_x_400mf resnet18 resnet50 resnext50_32x4d shufflenet_v2_x0_5
    squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vit_b_16 wide_resnet50_2
"""
NAMES = [*(f"timm:{name}" for name in _TIMM.split()), *(f"torchvision:{name}" for name in _TORCHVISION.split())]

SMALL = 32
"""Pixels of the second row of a CNN."""
PLACES = 8
"""Patches that are made white."""


@dataclass(frozen=True)
class Row:
    """What is seen of one network at one image size; without a layer it was refused, for `reason`."""

    name: str
    side: int
    layer: str = ""
    grid: str = ""
    past: float = 0.0
    distance: float = 0.0
    placed: float | None = None
    note: str = ""
    reason: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the map is that of plain Grad-CAM, all of the gradient comes through the layer, and cells lie where
        the map has them."""
        carries = self.past < 1e-3 or self.note == "class token"
        return not self.layer or (carries and self.distance < 1e-3 and (self.placed is None or self.placed >= 0.75))


def build(name: str) -> tuple[nn.Module, int]:
    """The network with random weights in eval mode, and its usual image side.

    What begins at zero and does not stay there (layer scales, the last norms of residual branches, heads) is random
    too, or a branch that training opens would not be seen.
    """
    torch.manual_seed(0)
    library, _, kind = name.partition(":")
    if library == "timm":
        model = timm.create_model(kind).eval()
        if model.num_classes == 0:  # published as an embedding
            model = timm.create_model(kind, num_classes=10).eval()
        side = int(model.pretrained_cfg["input_size"][-1])
    else:
        options = {"init_weights": False} if kind in ("googlenet", "inception_v3") else {}
        model = getattr(torchvision.models, kind)(weights=None, **options).eval()
        side = 299 if kind == "inception_v3" else 224
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-4:
            nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.05)
    return model, side


def rows_of(name: str) -> list[Row]:
    """At its usual size and, where it is a CNN that runs so, at 32 pixels."""
    model, side = build(name)
    rows = [row_of(name, model, side)]
    if _is_cnn(model) and side != SMALL:
        with torch.no_grad():
            try:
                model(torch.randn(1, 3, SMALL, SMALL))
            except (RuntimeError, AssertionError, ValueError):
                return rows
        rows.append(row_of(name, model, SMALL))
    return rows


def row_of(name: str, model: nn.Module, side: int) -> Row:
    """One network at one size."""
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    try:
        explainer = contrex.GradCAM(model)
        why = explainer(images)
    except ContrexError as error:
        return Row(name, side, reason=str(error))
    layer, grid = str(explainer.layer), explainer.grid
    assert grid is not None
    reference, is_channels_first = plain_grad_cam(model, layer, images, why.target, grid)
    distance = float((why.heatmap - reference).norm() / reference.norm())
    past = share_past(model, layer, images, int(why.target[0]))
    note = (
        "class token" if past > 1e-3 and _reaches_no_cell_beside(model, layer, images, int(why.target[0]), grid) else ""
    )
    hits = None if is_channels_first else placed(model, layer, images, grid)
    return Row(name, side, layer, f"{grid[0]} x {grid[1]}", past, distance, hits, note)


def plain_grad_cam(
    model: nn.Module, layer: str, images: Tensor, target: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, bool]:
    """`sum_c mean_hw(dy_t / dA_c) A_c` with a hook and autograd, and whether the output is [N,C,h,w] as it is."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: kept.append(output.clone()) or kept[-1].clone()
    )
    logits = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), kept[0])
    activation, gradient = maps(kept[0], grid).detach(), maps(gradient, grid)
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1), activation.shape == kept[0].shape


def maps(output: Tensor, grid: tuple[int, int]) -> Tensor:
    """[N,C,h,w] of an output whose grid is known."""
    cells = grid[0] * grid[1]
    if output.ndim == 3 and output.shape[2] == cells and not 0 <= output.shape[1] - cells < 16:  # F.unfold's [N,C,T]
        return output.unflatten(2, grid)
    if output.ndim == 3:
        return output[:, output.shape[1] - cells :].mT.unflatten(2, grid)
    return output if output.shape[2:] == grid else output.movedim(-1, 1)


def share_past(model: nn.Module, layer: str, images: Tensor, target: int) -> float:
    """`|dy_t/dx with the layer's output detached| / |dy_t/dx|`."""
    whole, cut = (pixel_gradient(model, layer, images, target, cut=cut) for cut in (False, True))
    return float(cut.norm() / whole.norm())


def pixel_gradient(model: nn.Module, layer: str, images: Tensor, target: int, *, cut: bool) -> Tensor:
    pixels = images.clone().requires_grad_()
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: output.detach() if cut else None
    )
    score = model(pixels)[0, target]
    handle.remove()
    if not score.requires_grad:
        return torch.zeros_like(pixels)
    (found,) = torch.autograd.grad(score, pixels, allow_unused=True)
    return torch.zeros_like(pixels) if found is None else found


def _reaches_no_cell_beside(model: nn.Module, layer: str, images: Tensor, target: int, grid: tuple[int, int]) -> bool:
    """Whether, with the layer's output detached, the gradient reaches only the class token of what the layer gets."""
    kept: list[Tensor] = []
    module = model.get_submodule(layer)
    before = module.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    after = module.register_forward_hook(lambda module, inputs, output: output.detach())
    score = model(images.clone().requires_grad_())[0, target]
    before.remove()
    after.remove()
    (found,) = torch.autograd.grad(score, kept[0], allow_unused=True)
    return found is not None and found.ndim == 3 and bool((maps(found, grid) == 0).all())


@torch.no_grad()
def placed(model: nn.Module, layer: str, images: Tensor, grid: tuple[int, int]) -> float | None:
    """The share of cells that change most when the patch at their own place is made white, among the patches that are,
    one at a time; None where all cells change alike whichever it is."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: kept.append(output.clone())
    )
    side, generator = images.shape[2], torch.Generator().manual_seed(2)
    places = torch.randperm(grid[0] * grid[1], generator=generator)[:PLACES]
    model(images)
    for row, column in zip((places // grid[1]).tolist(), (places % grid[1]).tolist(), strict=True):
        changed = images.clone()
        top, left = row * side // grid[0], column * side // grid[1]
        changed[..., top : top + -(-side // grid[0]), left : left + -(-side // grid[1])] = 3.0
        model(changed)
    handle.remove()
    whole, *others = (maps(output, grid)[0] for output in kept)
    changes = torch.stack([(other - whole).square().sum(0).flatten()[places] for other in others])  # [patch, cell]
    if changes.max() < 2 * changes.mean():
        return None  # attention has mixed all places
    return float((changes.argmax(0) == torch.arange(len(places))).float().mean())


def _is_cnn(model: nn.Module) -> bool:
    """Whether the network has no attention among tokens and takes images of any size."""
    kinds = {type(module).__name__ for module in model.modules()}
    words = ("Attention", "Attn", "Mixer", "Block2d", "ViT", "Transformer", "Rnn")
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return first is not None and "LayerNorm" not in kinds and not any(word in kind for kind in kinds for word in words)


def table(rows: Sequence[Row]) -> str:
    """The page."""
    right = [row for row in rows if row.layer and row.is_right]
    refused = [row for row in rows if not row.layer]
    wrong = [row for row in rows if not row.is_right]
    versions = ", ".join(f"{m.__name__} {m.__version__.partition('+')[0]}" for m in (torch, timm, torchvision))
    lines = [
        "# The layer that is explained, network by network",
        "",
        "One network of each family of timm and torchvision that can be built without a download, with random weights,",
        f"at its usual image size; each CNN also at {SMALL} pixels. Written by `python tests/explain/architectures.py`",
        f"({versions}); a slow test checks that it is still true.",
        "",
        f"{len(rows)} rows: **{len(right)} right, {len(refused)} refused, {len(wrong)} wrong**.",
        "",
        "- *Flows past*: how much of the gradient `d logit / d pixels` is left if the layer's output is detached. A",
        "  class token may have its own way past the explained tokens (*class token*); then no gradient may go past",
        "  the layer to any cell of the grid.",
        "- *Distance*: the relative difference from Grad-CAM at that layer by plain autograd.",
        f"- *Placed*, for outputs that are not already [N,C,h,w]: {PLACES} patches of the image are made white, one at",
        "  a time. The number is how many of the cells at their places change most for their own patch. It is empty",
        "  where attention has mixed all places (LeViT).",
        "",
        "| network | pixels | layer | grid | flows past | distance | placed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.layer:
            past = f"{row.past:.0%} ({row.note})" if row.note else f"{row.past:.0%}"
            hits = "" if row.placed is None else f" {row.placed:.0%}"
            mark = "" if row.is_right else " **wrong**"
            cells = (row.name, row.side, row.layer, row.grid, past, f"{row.distance:.0e}", f"{hits}{mark}".strip())
            lines.append(f"| {' | '.join(map(str, cells))} |")
        else:
            lines.append(f"| {row.name} | {row.side} | refused: {row.reason.partition(': pass')[0]} | | | | |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str]) -> None:
    """Measure and write, or print."""
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    for name in NAMES:
        if words and not any(word in name for word in words):
            continue
        try:
            rows.extend(rows_of(name))
        except (RuntimeError, ValueError, OSError) as error:
            print(f"{name} is not built: {error}", file=sys.stderr)
            continue
        print(*[row for row in rows if row.name == name], sep="\n", flush=True)
    if not words:
        # What follows is another table of the same page, `by_architecture.py`'s.
        _, heading, rest = DOCS.read_text(encoding="utf-8").partition("\n## ")
        DOCS.write_text(table(rows) + heading + rest, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
