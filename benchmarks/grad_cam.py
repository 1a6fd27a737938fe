"""Grad-CAM of the last block against a plain forward pass, and what autograd keeps for it; captum and grad-cam beside.

ResNet-50 at 224 pixels, batch 8. Goals: at most 1.05 forwards and 1 MiB of saved tensors.
"""

from __future__ import annotations

import torch
from measuring import MIB, compare, save
from torch import nn

import contrex

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def saved_mib(function, model: nn.Module) -> float:
    """MiB of tensors that autograd saves during a call, each storage once, without the model's own parameters."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(size for pointer, size in storages.items() if pointer not in own) / MIB


def peers(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> dict:
    """The same map by other libraries, where they are installed."""
    found = {}
    try:
        from captum.attr import LayerGradCam

        found["captum"] = lambda: LayerGradCam(model, model.layer4).attribute(images, target)
    except ImportError:
        pass
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(int(t)) for t in target]

        def grad_cam() -> None:
            with GradCAM(model=model, target_layers=[model.layer4]) as cam:
                cam(input_tensor=images, targets=targets)

        found["grad-cam"] = grad_cam
    except ImportError:
        pass
    return found


def main() -> None:
    """Measure the forward pass, our Grad-CAM with and without closed form and contrast, and the peers."""
    from torchvision.models import resnet50

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = resnet50(num_classes=1000).eval().to(DEVICE)
    images, target = torch.randn(8, 3, 224, 224, device=DEVICE), torch.arange(8, device=DEVICE)
    explainer, by_vjp = contrex.GradCAM(model, "layer4"), contrex.GradCAM(model, "layer4")
    explainer(images)
    by_vjp._head._fitting = lambda *_: None  # as if the head were no linear layer

    def plain() -> None:
        with torch.no_grad():
            model(images)

    functions = {
        "plain forward": plain,
        "contrex": lambda: explainer(images, target=target),
        "contrex, weighted contrast": lambda: explainer(images, target=target, contrast="weighted"),
        "contrex, without closed form": lambda: by_vjp(images, target=target),
        **peers(model, images, target),
    }
    medians = compare(functions, device=DEVICE, rounds=5, warmup=1)
    rows = {
        name: {
            "seconds": taken,
            "forwards": round(taken / medians["plain forward"], 3),
            "saved_mib": round(saved_mib(functions[name], model), 2),
        }
        for name, taken in medians.items()
    }
    save("grad_cam", {"goal": "contrex <= 1.05 forwards, <= 1 MiB saved", **rows})


if __name__ == "__main__":
    main()
