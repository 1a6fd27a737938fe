"""Every explainer against a plain forward pass, with captum and grad-cam in the same run, time and peak memory.

ResNet-50 at 224 pixels, batch 8, for methods that differentiate; ResNet-18, one image, for those that ask the network
hundreds of times, where the ratio is to the number of forward passes that the method's definition needs.

    python benchmarks/explainers.py [GROUP ...]
    groups: last_block, layer2, classes, input, perturbation, cams, attention
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


def torch_cam_library(method: str, model: nn.Module, layers: object, images: torch.Tensor, target, **options) -> None:
    """One call of torch-cam, as its README writes it."""
    import torchcam.methods

    with getattr(torchcam.methods, method)(model, layers, **options) as cam:
        cam(target.tolist(), model(images))


def cams() -> tuple[Functions, dict[str, float]]:
    """ShapleyCAM, FEM, KPCA-CAM, Guided Grad-CAM, RefineCAM and the options of any explainer: ResNet-18, batch 4."""
    import pytorch_grad_cam
    from captum.attr import GuidedGradCam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images, target = resnet("resnet18", 4)
    last, names = model.layer4, ["layer2", "layer3", "layer4"]
    layers = [getattr(model, name) for name in names]
    functions: Functions = {"plain forward": partial(plain, model, images)}

    def ours(name: str, made: contrex.Explainer) -> None:
        functions[name] = partial(made, images, target=target)

    def several(method: str, *, aug_smooth: bool = False, chosen: list[nn.Module]) -> None:
        kind = getattr(pytorch_grad_cam, method)
        cam, asked = kind(model=model, target_layers=chosen), [ClassifierOutputTarget(int(t)) for t in target]
        cam(input_tensor=images, targets=asked, **({"aug_smooth": True} if aug_smooth else {}))

    ours("grad_cam", contrex.GradCAM(model))
    functions["grad-cam GradCAM"] = partial(grad_cam_library, "GradCAM", model, last, images, target)
    functions["torch-cam GradCAM"] = partial(torch_cam_library, "GradCAM", model, last, images, target)
    ours("layer_cam", contrex.LayerCAM(model))
    functions["torch-cam LayerCAM"] = partial(torch_cam_library, "LayerCAM", model, last, images, target)
    ours("shapley_cam", contrex.ShapleyCAM(model))
    functions["grad-cam ShapleyCAM"] = partial(grad_cam_library, "ShapleyCAM", model, last, images, target)
    ours("shapley_cam at layer3", contrex.ShapleyCAM(model, "layer3"))
    functions["grad-cam ShapleyCAM at layer3"] = partial(
        grad_cam_library, "ShapleyCAM", model, model.layer3, images, target
    )
    ours("fem", contrex.FEM(model))
    functions["grad-cam FEM"] = partial(grad_cam_library, "FEM", model, last, images, target)
    ours("kpca_cam", contrex.KPCACAM(model))
    functions["grad-cam KPCA_CAM"] = partial(grad_cam_library, "KPCA_CAM", model, last, images, target)
    ours("guided_grad_cam", contrex.GuidedGradCAM(model))
    functions["captum GuidedGradCam"] = lambda: GuidedGradCam(model, last).attribute(images, target)
    ours("refine_cam, 3 layers", contrex.RefineCAM(model, fuse=f"product({', '.join(names)})"))
    functions["grad-cam RefineCAM, 3 layers"] = partial(several, "RefineCAM", chosen=layers)
    functions["torch-cam RefineCAM, 3 layers"] = partial(torch_cam_library, "RefineCAM", model, names, images, target)
    ours("grad_cam, mean of 3 layers", contrex.GradCAM(model, fuse=f"mean({', '.join(names)})"))
    functions["grad-cam GradCAM, 3 layers"] = partial(several, "GradCAM", chosen=layers)
    ours("grad_cam, 6 views", contrex.GradCAM(model, augment="flip, times(0.9, 1.1)"))
    functions["grad-cam GradCAM, aug_smooth"] = partial(several, "GradCAM", aug_smooth=True, chosen=[last])
    return functions, {}


def attention() -> tuple[Functions, dict[str, float]]:
    """Methods of attention: a vision transformer of torchvision of the size of ViT-Ti/16, batch 4."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(224, 16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768).eval().to(DEVICE)
    nn.init.normal_(model.heads.head.weight)
    images, target = torch.randn(4, 3, 224, 224, device=DEVICE), torch.arange(4, device=DEVICE)
    functions: Functions = {"plain forward": partial(plain, model, images)}
    for name in ("attention_rollout", "gradient_attention_rollout", "legrad"):
        functions[name] = partial(EXPLAINERS[name](model), images, target=target)
    functions["legrad, 10 classes"] = partial(contrex.LeGrad(model).classes, images, classes=range(10))
    blocks = list(model.encoder.layers)
    functions["torch-cam LeGrad"] = partial(torch_cam_library, "LeGrad", model, blocks, images, target)
    return functions, {}


GROUPS = {
    "last_block": (last_block, 5),
    "layer2": (layer2, 5),
    "classes": (classes, 3),
    "input": (input_methods, 3),
    "perturbation": (perturbation, 1),
    "cams": (cams, 3),
    "attention": (attention, 3),
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
