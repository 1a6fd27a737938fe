"""Metrics that ask the network, against the passes that their definitions need, with other libraries in the same run.

ResNet-18 with random weights at 224 pixels, 8 images, 8 in a pass, curves of 8 steps. `ran` is how many images the
network saw per image judged (forwards, counted by a hook), `needed` what the definition asks for, `per_needed` the time
over that of the needed passes: forwards and, for gradients of pixels, backwards, each measured alone in the same run
and at the same batch size. Goal: at most 1.10.

    python benchmarks/metrics.py [GROUP ...] [--peers FOLDER]

Groups: protocols (each alone, as `contrex evaluate` runs it), functions (beside captum, pytorch-grad-cam, Quantus and a
loop as in RISE). Quantus is no dependency of contrex and is looked for in `--peers` too: pip install --no-deps --target
FOLDER quantus pandas scikit-image cachetools imageio tifffile lazy-loader python-dateutil tzdata.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measuring import compare, save
from torch import Tensor, nn

import contrex
from contrex import settings
from contrex.data.views.evaluation import Views, Whole
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocols import PROTOCOLS
from contrex.evaluation.subject import Subject
from contrex.metrics import deletion_curve, infidelity, insertion_curve, max_sensitivity, pointing_game
from contrex.models import Classifier
from contrex.ops import heatmap
from contrex.ops.pixels import gaussian_blur

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NUM, SIDE, STEPS, SAMPLES = 8, 224, 8, 10
ROWS = SIDE // STEPS * SIDE
WHOLE_GROUP = 32
"""Images of the protocols whose cost belongs to a whole group: the CGC loss, and networks that are randomised."""
Functions = dict[str, Callable[[], object]]
Rows = dict[str, dict[str, Any]]

NEEDED: dict[str, tuple[int, int]] = {
    "top1": (1, 0),
    "top5": (1, 0),
    "calibration": (1, 0),
    "fgsm": (1 + 3, 1),  # one gradient serves every epsilon
    "content_heatmap": (1, 0),
    "pointing_game": (1, 0),
    "stochastic_pointing_game": (1, 0),
    "relative_probability": (1 + 2 * 2 * 3, 0),  # two classes, two signs, three baselines
    "gradient_sign": (1 + 4 * 2, 4),  # four scores of one forward, two epsilons
    "insertion_auc": (STEPS + 1, 0),
    "deletion_auc": (STEPS + 1, 0),
    "deletion_auc, road": (STEPS + 1, 0),
    "drop_increase": (1 + 3, 0),
    "arcc": (2 + 2 * 4, 0),  # the image, the masked image, four fractions of two orders
    "single_deletion": (2 + 4 * 4, 0),  # random weights never predict the label, whose map takes a pass of its own
    "infidelity": (1 + SAMPLES, 0),
    "max_sensitivity": (1 + SAMPLES, 0),
    "cgc_loss": (2, 0),
    "equivariance": (1 + 5, 0),  # a flip, four crops
    "parameter_randomization": (1 + 7, 0),  # seven stages of a ResNet
    "repeatability": (2, 0),  # with one other network
    "embedding": (3, 0),  # the explanation's pass has the features of the image
}
"""(forwards, backwards) for each image, Grad-CAM of the last block being one forward."""


class Counter:
    """Counts the images that a network and its copies see in a call of each function."""

    def __init__(self, model: nn.Module) -> None:
        self.images = 0
        self.ran: dict[str, int] = {}
        model.register_forward_pre_hook(self._count)

    def _count(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images += len(inputs[0])

    def __deepcopy__(self, _memo: object) -> Counter:
        return self  # a copied network counts here too

    def counting(self, name: str, function: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            before = self.images
            function()
            self.ran[name] = self.images - before

        return run


def resnet() -> nn.Module:
    """The network that is asked."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(weights=None).eval().to(DEVICE)


def passes(model: nn.Module, images: Tensor) -> Functions:
    """The units: a forward pass, and one with the backward pass to the pixels."""

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def with_backward() -> None:
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)

    return {"forward": forward, "forward and backward": with_backward}


def table(
    model: nn.Module, units: Functions, functions: Functions, needed: dict[str, tuple[int, int]], num=NUM
) -> Rows:
    """A row of figures for each function, which judges `num` images."""
    counter = Counter(model)
    counted = {name: counter.counting(name, function) for name, function in functions.items()}
    taken = compare(units | counted, device=DEVICE, rounds=3, warmup=0)  # the median leaves a slow first call out
    forward = taken["forward"]
    backward = taken["forward and backward"] - forward
    rows: Rows = {name: {"seconds_per_image": round(taken[name] / NUM, 5)} for name in units}
    for name in functions:
        forwards, backwards = needed[name]
        floor = (forwards * forward + backwards * backward) / NUM
        rows[name] = {
            "seconds_per_image": round(taken[name] / num, 5),
            "ran": round(counter.ran[name] / num, 2),
            "needed": forwards if not backwards else f"{forwards} and {backwards} backwards",
        }
        if floor:
            rows[name]["per_needed"] = round(taken[name] / num / floor, 3)
        else:
            rows[name]["forwards"] = round(taken[name] / num / (forward / NUM), 4)
    return rows


# --- the protocols, each alone ---------------------------------------------------------------------------------------


def views_of(num: int) -> list[Views]:
    """Random images, each its own whole, with a box."""
    draws = torch.Generator().manual_seed(0)
    squares = torch.randint(256, (num, 3, SIDE, SIDE), dtype=torch.uint8, generator=draws)
    box = np.array([[100, 50, 300, 250]], np.float32)
    return [Views(i, square, Whole(square, box, (375, 500)), i % 10, f"{i}.jpg") for i, square in enumerate(squares)]


def bench_of(model: nn.Module, **options: Any) -> Bench:
    """The bench of `contrex evaluate` around the model, 8 images in a pass."""
    classes = SimpleNamespace(name="random", classes=[str(index) for index in range(1000)])
    classifier = Classifier(model, settings.IMAGENET_MEAN, settings.IMAGENET_STD)
    others = {"other": Classifier(resnet(), classifier.mean, classifier.std)}
    subject = Subject("benchmark", classifier, classes, settings.Folder(Path(), image_size=SIDE), others=others)
    return Bench(subject, settings.Evaluation(batch_size=NUM, insertion_step=ROWS, **options))


def judging(bench: Bench, name: str, views: list[Views]) -> Callable[[], object]:
    """One protocol on a group of its own, so that nothing is shared with others; its fractions and curves included."""

    def run() -> None:
        protocol = PROTOCOLS[name](bench)
        needs = {"has_heatmaps": protocol.needs_heatmaps, "has_features": protocol.needs_features}
        protocol.judge(Group(bench, views, **needs))

    return run


def protocols() -> Rows:
    """Every protocol, as the command runs it."""
    model = resnet()
    every = settings.RelativeProbability(threshold=0.0)  # all images count: two classes of random weights never do
    bench, views = bench_of(model, relative_probability=every), views_of(WHOLE_GROUP)
    units = passes(model, Group(bench, views[:NUM]).squares)
    whole = ("cgc_loss", "parameter_randomization")
    left_out = ("grid_pointing_game", "human_alignment")  # need images that are read again, and maps by people
    small = {name: judging(bench, name, views[:NUM]) for name in PROTOCOLS if name not in (*whole, *left_out)}
    road = bench_of(model, deletion_baseline="road")
    small["deletion_auc, road"] = judging(road, "deletion_auc", views[:NUM])
    rows = table(model, units, small, NEEDED)
    large = {name: judging(bench, name, views) for name in whole}
    more = table(model, units, large, NEEDED, num=WHOLE_GROUP)
    return rows | {name: more[name] for name in large}


# --- the functions, and other libraries -------------------------------------------------------------------------------


def rise_loop(model: nn.Module, images: Tensor, saliency: Tensor, starts: Tensor, ends: Tensor) -> list[np.ndarray]:
    """Insertion or deletion as in RISE: one image at a time, sorted and changed by numpy, a copy for every step."""
    curves = []
    for image, heat, start, end in zip(images, saliency.numpy(), starts, ends, strict=True):
        order = np.argsort(-heat.reshape(-1))
        label = int(model(image[None]).argmax())
        state, final = start.numpy().reshape(3, -1).copy(), end.numpy().reshape(3, -1)
        curve = np.empty(STEPS + 1)
        for step in range(STEPS + 1):
            batch = torch.from_numpy(state.reshape(1, *image.shape)).to(DEVICE)
            curve[step] = model(batch).softmax(1)[0, label].cpu().numpy()
            some = order[step * ROWS : (step + 1) * ROWS]
            state[:, some] = final[:, some]
        curves.append(curve)
    return curves


def of_captum(model: nn.Module, images: Tensor, saliency: Tensor, target: Tensor, explain: Any) -> Functions:
    """Its infidelity and max-sensitivity, in batches of 8."""
    from captum.metrics import infidelity as theirs
    from captum.metrics import sensitivity_max

    attribution = saliency[:, None].expand_as(images).contiguous()

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    together = {"n_perturb_samples": SAMPLES, "max_examples_per_batch": NUM}
    return {
        "infidelity: captum": lambda: theirs(model, perturbed, images, attribution, target=target, **together),
        "max_sensitivity: captum": lambda: sensitivity_max(lambda given: (explain(given[0]),), images, **together),
    }


def of_grad_cam(model: nn.Module, images: Tensor, saliency: Tensor, target: Tensor) -> Functions:
    """Its ROAD at 8 shares of the pixels, the scores of the whole images left out as ours are known."""
    from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    targets = [ClassifierOutputSoftmaxTarget(int(t)) for t in target]

    def road() -> None:
        for share in np.linspace(100, 0, STEPS + 1)[1:-1]:
            imputed = ROADMostRelevantFirst(percentile=share)
            imputed(images, saliency.numpy(), targets, model, return_diff=False)

    return {"deletion, road: pytorch-grad-cam": road}


def of_quantus(model: nn.Module, images: Tensor, saliency: Tensor, target: Tensor, explain: Any) -> Functions:
    """Its pixel flipping, infidelity (one draw of 16 blocks), max-sensitivity and pointing game."""
    import quantus

    mask = np.zeros((NUM, 1, SIDE, SIDE), bool)
    mask[:, :, 30:150, 45:134] = True
    given = {"x_batch": images.numpy(), "y_batch": target.numpy(), "a_batch": saliency[:, None].numpy()}
    given |= {"s_batch": mask, "batch_size": NUM, "device": str(DEVICE), "channel_first": True, "softmax": True}
    quiet = {"disable_warnings": True, "display_progressbar": False}

    def explained(model: nn.Module, inputs: Any, targets: Any, **_: object) -> np.ndarray:
        maps = explain(torch.as_tensor(inputs).float(), torch.as_tensor(targets))
        return heatmap.resize(maps, (SIDE, SIDE))[:, None].numpy()  # it takes none of another size

    return {
        "deletion: Quantus PixelFlipping": lambda: quantus.PixelFlipping(
            features_in_step=SIDE**2 // 2, normalise=False, **quiet
        )(model, **given),
        "infidelity: Quantus": lambda: quantus.Infidelity(perturb_patch_sizes=[56], n_perturb_samples=1, **quiet)(
            model, **given
        ),
        "max_sensitivity: Quantus": lambda: quantus.MaxSensitivity(nr_samples=SAMPLES, lower_bound=0.02, **quiet)(
            model, explain_func=explained, **given
        ),
        "pointing_game: Quantus": lambda: quantus.PointingGame(**quiet)(model, **given),
    }


NEEDED_OF_FUNCTIONS: dict[str, tuple[int, int]] = {
    "insertion": (STEPS + 1, 0),
    "insertion, images in channels last": (STEPS + 1, 0),
    "insertion: RISE-style loop": (STEPS + 1, 0),
    "deletion": (STEPS + 1, 0),
    "deletion: RISE-style loop": (STEPS + 1, 0),
    "deletion: Quantus PixelFlipping": (6, 0),  # of half of a channel each, without the whole image
    "deletion, road": (STEPS + 1, 0),
    "deletion, road: pytorch-grad-cam": (STEPS - 1, 0),  # without the whole image and the last step
    "infidelity": (SAMPLES + 1, 0),
    "infidelity: captum": (SAMPLES + 1, 0),
    "infidelity: Quantus": (16 + 1, 0),
    "max_sensitivity": (SAMPLES + 1, 0),
    "max_sensitivity: captum": (SAMPLES + 1, 0),
    "max_sensitivity: Quantus": (SAMPLES, 0),  # the map of the image is given
    "pointing_game": (0, 0),
    "pointing_game: Quantus": (0, 0),
}


def functions() -> Rows:
    """The functions that other libraries have too."""
    model = resnet()
    images = Group(bench_of(model), views_of(NUM)).squares
    explainer = contrex.GradCAM(model)
    found = explainer(images)
    target, saliency = found.target, heatmap.resize(found.heatmap, (SIDE, SIDE))
    blurred, zero, seeds = gaussian_blur(images), torch.zeros_like(images), list(range(NUM))
    boxes = [[[45.0, 30.0, 134.0, 150.0]]] * NUM

    def explain(some: Tensor, classes: Tensor = target) -> Tensor:
        return explainer(some, target=classes).heatmap

    curve = {"step": ROWS, "batch_size": NUM}
    sampled = {"num_samples": SAMPLES, "seeds": seeds, "batch_size": NUM, "target": target}
    last = images.contiguous(memory_format=torch.channels_last)
    rise = torch.no_grad()(partial(rise_loop, model, images.cpu(), saliency.cpu()))
    ours: Functions = {
        "insertion": partial(insertion_curve, model, images, saliency, **curve),
        "insertion, images in channels last": partial(insertion_curve, model, last, saliency, **curve),
        "insertion: RISE-style loop": lambda: rise(blurred, images),
        "deletion": partial(deletion_curve, model, images, saliency, **curve),
        "deletion: RISE-style loop": lambda: rise(images, zero),
        "deletion, road": partial(deletion_curve, model, images, saliency, baseline="road", **curve),
        "infidelity": partial(infidelity, model, images, saliency, noise_std=0.1, **sampled),
        "max_sensitivity": partial(max_sensitivity, explain, images, radius=0.02, **sampled),
        "pointing_game": partial(pointing_game, found.heatmap, boxes, [(SIDE, SIDE)] * NUM),
    }
    arguments = (model, images, saliency, target)
    ours |= of_captum(*arguments, explain) | of_grad_cam(*arguments)
    missing = {}
    try:
        ours |= of_quantus(*arguments, explain)
    except ImportError as error:
        missing = {"Quantus": {"not_installed": str(error)}}
    in_order = {name: ours[name] for name in NEEDED_OF_FUNCTIONS if name in ours}
    return table(model, passes(model, images), in_order, NEEDED_OF_FUNCTIONS) | missing


GROUPS = {"protocols": protocols, "functions": functions}


def main() -> None:
    """Measure the groups named on the command line, both without any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("groups", nargs="*", default=list(GROUPS))
    parser.add_argument("--peers", type=Path)
    given = parser.parse_args()
    if given.peers is not None:
        sys.path.append(str(given.peers))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.groups:
        save(f"metrics_{name}", {"goal": "per_needed <= 1.10", **GROUPS[name]()})


if __name__ == "__main__":
    main()
