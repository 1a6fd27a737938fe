"""Every explainer against a plain forward pass, with captum and grad-cam in the same run, time and peak memory.

ResNet-50 at 224 pixels, batch 8, for methods that differentiate; ResNet-18, one image, for those that ask the network
hundreds of times, where the ratio is to the number of forward passes that the method's definition needs.

    python benchmarks/explainers.py [GROUP ...]      groups: last_block, layer2, classes, input, perturbation
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial

import torch
from measuring import compare, peak_mib, save
from torch import nn

import contrex
from contrex.explain import EXPLAINERS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NUM_CLASSES = 20
NUM_MASKS = 64
STEPS = 32
Functions = dict[str, Callable[[], object]]


def resnet(name: str, batch: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network with random weights, images, and a target for each."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(name, weights=None).eval().to(DEVICE)
    return model, torch.randn(batch, 3, 224, 224, device=DEVICE), torch.arange(batch, device=DEVICE)


def plain(model: nn.Module, images: torch.Tensor) -> None:
    """The unit of every ratio."""
    with torch.inference_mode():
        model(images)


def grad_cam_library(method: str, model: nn.Module, layer: nn.Module, images: torch.Tensor, target, **options) -> None:
    """One call of pytorch-grad-cam, as its README writes it."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, method)(model=model, target_layers=[layer], **options) as cam:
        cam(input_tensor=images, targets=[ClassifierOutputTarget(int(t)) for t in target])


def last_block() -> tuple[Functions, dict[str, float]]:
    """Grad-CAM and its contrasts at the last block."""
    from captum.attr import LayerGradCam

    model, images, target = resnet("resnet50", 8)
    functions: Functions = {"plain forward": partial(plain, model, images)}
    for name in ("cam", "grad_cam", "hires_cam", "xgrad_cam", "grad_cam_plus_plus", "layer_cam", "eigen_cam"):
        functions[name] = partial(EXPLAINERS[name](model), images, target=target)
    for contrast in ("mean", "max", "weighted"):
        functions[f"grad_cam, {contrast}"] = partial(contrex.GradCAM(model), images, target=target, contrast=contrast)
    captum = LayerGradCam(model, model.layer4)
    functions["captum LayerGradCam"] = lambda: captum.attribute(images, target)
    functions["grad-cam GradCAM"] = partial(grad_cam_library, "GradCAM", model, model.layer4, images, target)
    return functions, {}


def layer2() -> tuple[Functions, dict[str, float]]:
    """Grad-CAM far from the classifier: a real backward pass."""
    from captum.attr import LayerGradCam

    model, images, target = resnet("resnet50", 8)
    captum = LayerGradCam(model, model.layer2)
    return {
        "plain forward": partial(plain, model, images),
        "grad_cam": partial(contrex.GradCAM(model, "layer2"), images, target=target),
        "captum LayerGradCam": lambda: captum.attribute(images, target),
    }, {}


def classes() -> tuple[Functions, dict[str, float]]:
    """Twenty classes of every image."""
    from captum.attr import LayerGradCam

    model, images, _ = resnet("resnet50", 8)
    captum, explainer = LayerGradCam(model, model.layer4), contrex.GradCAM(model)

    def theirs() -> None:
        for index in range(NUM_CLASSES):
            captum.attribute(images, torch.full((len(images),), index, device=DEVICE))

    return {
        "plain forward": partial(plain, model, images),
        "grad_cam": partial(explainer.classes, images, classes=range(NUM_CLASSES)),
        "captum LayerGradCam": theirs,
    }, {}


def input_methods() -> tuple[Functions, dict[str, float]]:
    """Gradients at the pixels."""
    from captum.attr import IntegratedGradients, Saliency

    model, images, target = resnet("resnet50", 8)
    saliency, path = Saliency(model), IntegratedGradients(model)
    functions: Functions = {"plain forward": partial(plain, model, images)}
    for name in ("gradient", "gradient_times_input", "guided_backprop", "deconvnet", "full_grad"):
        functions[name] = partial(EXPLAINERS[name](model), images, target=target)
    functions["captum Saliency"] = lambda: saliency.attribute(images.clone().requires_grad_(), target, abs=False)
    few, some = images[:2], target[:2]
    functions[f"integrated_gradients, 2 images x {STEPS} steps"] = partial(
        contrex.IntegratedGradients(model, steps=STEPS), few, target=some
    )
    functions[f"captum IntegratedGradients, 2 images x {STEPS} steps"] = lambda: path.attribute(
        few, target=some, n_steps=STEPS, internal_batch_size=8
    )
    return functions, {}


def perturbation() -> tuple[Functions, dict[str, float]]:
    """Methods that ask again: one image, ResNet-18; `needed` forwards of one image each."""
    model, images, target = resnet("resnet18", 1)
    channels = 512
    windows = len(range(0, 224 - 32 + 1, 16)) ** 2
    ours: dict[str, tuple[Callable[[], object], int]] = {
        "score_cam": (partial(contrex.ScoreCAM(model), images, target=target), channels + 1),
        "ablation_cam, closed form": (partial(contrex.AblationCAM(model), images, target=target), 1),
        f"rise, {NUM_MASKS} masks": (
            partial(contrex.RISE(model, num_masks=NUM_MASKS), images, target=target),
            NUM_MASKS + 1,
        ),
        "occlusion": (partial(contrex.Occlusion(model, window=32, stride=16), images, target=target), windows + 1),
    }
    functions: Functions = {"plain forward": partial(plain, model, images)}
    functions |= {name: function for name, (function, _) in ours.items()}
    layer = model.layer4
    functions["grad-cam ScoreCAM"] = partial(grad_cam_library, "ScoreCAM", model, layer, images, target)
    functions["grad-cam AblationCAM"] = partial(grad_cam_library, "AblationCAM", model, layer, images, target)
    needed = {name: float(number) for name, (_, number) in ours.items()}
    return functions, {**needed, "grad-cam ScoreCAM": channels + 1.0, "grad-cam AblationCAM": channels + 1.0}


GROUPS = {
    "last_block": (last_block, 5),
    "layer2": (layer2, 5),
    "classes": (classes, 3),
    "input": (input_methods, 3),
    "perturbation": (perturbation, 1),
}


def measured(name: str) -> dict[str, dict[str, float]]:
    """Seconds, ratio to one forward pass, to the passes needed, and peak memory of each function of a group."""
    build, rounds = GROUPS[name]
    functions, needed = build()
    medians = compare(functions, device=DEVICE, rounds=rounds, warmup=1)
    unit = medians["plain forward"]
    rows = {}
    for key, taken in medians.items():
        rows[key] = {"seconds": round(taken, 4), "forwards": round(taken / unit, 3)}
        if key in needed:
            rows[key] |= {"needed": needed[key], "per_needed_forward": round(taken / unit / needed[key], 3)}
        rows[key]["peak_mib"] = round(peak_mib(functions[key], DEVICE), 1)
    return rows


def main() -> None:
    """Measure the groups named on the command line, all without any."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or GROUPS:
        save(f"explainers_{name}", measured(name))


if __name__ == "__main__":
    main()
