"""What every explainer promises, as checks that any explainer can be put through - yours too.

    from contrex.explain.contract import check_contract
    check_contract(MyCAM, model, images)      # raises ContractError with the first promise that is broken
    check_contract(MyCAM, model, images, side=64)   # at 64 pixels: a third of the time of 224, or less

`kind` is the class, or a function from a model to an explainer. The model must be in eval mode and tell the images
apart; float64 makes the checks sharp.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from contrex.errors import ArgumentError, ContrexError, NotDifferentiableError, unknown_name
from contrex.explain.contract_networks import Changing, Clipping, turn_classifier
from contrex.explain.contract_states import frozen, some_modules_training, state_of
from contrex.explain.explainer import Explainer
from contrex.explain.forward.capture import watched
from contrex.models import Classifier, model_logits
from contrex.models.classifier import network_of
from contrex.ops import scores

Kind = Callable[[nn.Module], Explainer]


class ContractError(AssertionError):
    """Raised for the first promise that an explainer breaks."""


def check_contract(
    kind: Kind,
    model: nn.Module | Classifier,
    images: Tensor,
    *,
    side: int | None = None,
    checks: Sequence[str] | None = None,
    tell: Callable[[str], None] | None = print,
) -> None:
    """Put an explainer through the checks; `images` [N,C,H,W] is a batch of at least two.

    Args:
        side: pixels to which the shorter side of the images is resized first. Checks make some hundred passes, and a
            network for images of any size keeps the same promises at 64 pixels; None leaves the images as they are.
        checks: the names of those to run, in `CHECKS`; None runs all.
        tell: gets a line when a check begins, and one when all have passed; None is silent.

    Raises:
        ContractError: the first broken promise.
        ArgumentError: `side` is below 1.
        UnknownNameError: there is no check of this name.
    """
    began, names = time.monotonic(), list(CHECKS if checks is None else checks)
    for name in names:
        if name not in CHECKS:
            raise unknown_name("`checks`", name, CHECKS)
    images, model = _resized(images, side), network_of(model)
    told = tell or (lambda line: None)
    for number, name in enumerate(names, 1):
        told(f"contract {number}/{len(names)}: {name.replace('_', ' ')}")
        CHECKS[name](kind, model, images)
    who, taken = getattr(kind, "__name__", "the explainer"), time.monotonic() - began
    told(f"contract: {who} passes {len(names)} of {len(CHECKS)} checks, {taken:.1f} s")


def _resized(images: Tensor, side: int | None) -> Tensor:
    """The images with a shorter side of `side` pixels."""
    if side is None:
        return images
    if side < 1:
        raise ArgumentError(f"`side` must be at least 1 pixel, or None; got {side}.")
    height, width = (round(side * length / min(images.shape[-2:])) for length in images.shape[-2:])
    return nn.functional.interpolate(images, (height, width), mode="bilinear", antialias=True)


def gives_what_it_promises(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """One finite, raw map per image on the images' device, in float32 or better, without a graph, beside the model's
    own logits; the top prediction is the default target."""
    why = kind(model)(images)
    with torch.no_grad():
        logits = model_logits(model, images.clone())
    num, heatmap = len(images), why.heatmap
    _expect(heatmap.ndim == 3 and len(heatmap) == num and min(heatmap.shape) > 0, f"heatmap is {list(heatmap.shape)}")
    _expect(heatmap.dtype == torch.promote_types(images.dtype, torch.float32), f"heatmap is {heatmap.dtype}")
    _expect(heatmap.device == images.device, f"heatmap is on {heatmap.device}")
    _expect(bool(heatmap.isfinite().all()), "heatmap is not finite")
    _expect(not heatmap.requires_grad and not why.logits.requires_grad, "heatmap or logits carry a graph")
    _expect(not heatmap.is_inference(), "heatmap is an inference tensor")
    _expect_close(why.logits, logits, "logits and the model's own")
    _expect(
        torch.equal(why.target, scores.predicted(why.logits, why.task)), "the default target is not the top prediction"
    )


def explains_a_batch_as_single_images(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Check that a batch with different targets and contrasts gives what each image gives alone."""
    explainer = kind(model)
    whole = explainer(images)
    num_classes = scores.class_logits(whole.logits, whole.task).shape[1]
    targets = (torch.arange(len(images), device=images.device) + 1) % num_classes
    foils = (targets + 1) % num_classes
    contrasts, scale = ([None, foils] if explainer.is_class_specific else [None]), whole.heatmap
    for contrast in contrasts:
        whole = explainer(images, target=targets, contrast=contrast)
        scale = whole.heatmap if contrast is None else scale  # a contrast is as exact as the maps it is between
        for i in range(len(images)):
            foil = None if contrast is None else int(foils[i])
            one = explainer(images[i : i + 1], target=int(targets[i]), contrast=foil)
            _expect_close(whole.heatmap[i : i + 1], one.heatmap, "the map in a batch and alone", scale=scale)


def answers_classes_as_single_calls(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Several classes at once are the classes one by one, and contrasts are differences of signed class maps."""
    explainer = kind(model)
    many = explainer.classes(images, k=2)
    for place in range(2):
        one = explainer(images, target=many.target[:, place])
        _expect_close(many.heatmap[:, place], one.heatmap, "a class among several and alone", scale=many.heatmap)
    if explainer.is_class_specific:
        pair = explainer(images, target=many.target[:, 0], contrast=many.target[:, 1])
        _expect_close(many.pair(0, 1).heatmap, pair.heatmap, "the pair contrast and the difference of the class maps",
                      scale=many.heatmap)  # fmt: skip


def leaves_no_trace(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Gradients, flags, parameters, buffers, modes, hooks and random state are as before, also when the call raises."""
    explainer = kind(model)
    with some_modules_training(model):
        before = state_of(model)
        explainer(images)
        if explainer.is_class_specific:
            explainer(images, contrast="weighted")
        _expect_same(before, state_of(model), "a call")
        with contextlib.suppress(ContrexError):
            explainer(images, target=10**6)
        with contextlib.suppress(RuntimeError, ContrexError):
            explainer(torch.zeros(1, 11, *images.shape[2:], dtype=images.dtype, device=images.device))
        _expect_same(before, state_of(model), "a call that raised")


def works_in_every_context(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Under no_grad and inference_mode, with modules in train mode and with frozen parameters the map is the same."""
    expected = kind(model)(images, target=0).heatmap
    for context in (torch.no_grad(), torch.inference_mode(), some_modules_training(model), frozen(model)):
        with context:
            found = kind(model)(images.clone(), target=0).heatmap
        _expect_close(found, expected, f"the map under {type(context).__name__} and without")


def survives_autocast(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Under bfloat16 and float16 autocast the map is finite and float32 or better."""
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(images.device.type, dtype=dtype):
            found = kind(model)(images, target=0).heatmap
        _expect(found.dtype == torch.promote_types(images.dtype, torch.float32), f"heatmap is {found.dtype}")
        _expect(bool(found.isfinite().all()), f"heatmap is not finite under {dtype}")


def serves_several_threads(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Four threads on one explainer get what each would get alone."""
    explainer = kind(model)
    batches = [images.roll(shift, 0)[:1] for shift in range(4)]
    expected = [explainer(batch, target=0).heatmap for batch in batches]
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            found = explainer(batches[index], target=0).heatmap
            _expect_close(found, expected[index], "the map in a thread and alone")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise ContractError(f"in one of four threads: {failures[0]}") from failures[0]


def explains_wrapped_models(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """`torch.compile` and `DataParallel` around the model change nothing."""
    expected = kind(model)(images, target=0).heatmap
    for wrapped in (torch.compile(model, backend="eager"), nn.DataParallel(model)):
        found = kind(wrapped)(images, target=0).heatmap  # type: ignore[arg-type]
        _expect_close(found, expected, f"the map of the {type(wrapped).__name__} and of the model")


def frees_its_memory(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Nothing of the forward pass outlives the call but the logits."""
    explainer = kind(model)
    made: list[tuple[StorageWeakRef, list[int]]] = []

    def see(module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            made.append((_reference(output), list(output.shape)))

    with watched(list(model.modules()), see):
        why = explainer(images)
    own = {_reference(tensor) for tensor in (why.logits, images)}

    def kept() -> list[list[int]]:
        return [shape for storage, shape in made if storage not in own and not storage.expired()]  # type: ignore[no-untyped-call]

    if kept():
        gc.collect()  # what only cycles hold
    _expect(not kept(), f"{len(kept())} activations outlive the call, one of shape {kept()[:1]}")


def _reference(tensor: Tensor) -> StorageWeakRef:
    """What knows whether the memory of a tensor is still held, without holding it."""
    reference: StorageWeakRef = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    return reference


def is_differentiable_or_says_so(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """`differentiable=True` gives the same map with a graph that a loss can go back through, or names a method that
    can."""
    explainer = kind(model)
    if not explainer.is_differentiable:
        try:
            explainer(images, differentiable=True)
        except NotDifferentiableError:
            return
        raise ContractError("differentiable=True did not raise although is_differentiable is False")
    for contrast in (None, "weighted") if explainer.is_class_specific else (None,):
        plain = explainer(images, target=0, contrast=contrast)
        graph = explainer(images, target=0, contrast=contrast, differentiable=True)
        _expect(graph.heatmap.requires_grad and graph.logits.requires_grad, "differentiable=True gives no graph")
        _expect_close(graph.heatmap.detach(), plain.heatmap, "the differentiable map and the plain one")
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        try:
            torch.autograd.grad(graph.heatmap.sum(), parameters, allow_unused=True)
        except RuntimeError as error:
            raise ContractError(f"the map's graph has no gradient: {error}") from error


def explains_the_models_own_logits(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Whatever is asked - a class, a contrast, a score, several classes, a graph - the logits are the model's own."""
    explainer = kind(model)
    with torch.no_grad():
        own = model(images.clone())
    questions: list[dict[str, Any]] = [{"target": 0}]
    if explainer.is_class_specific:
        questions += [{"contrast": "weighted"}, {"score": "probability"}]
    if explainer.is_differentiable:
        questions += [{"differentiable": True}]
    for question in questions:
        with contextlib.suppress(ArgumentError):  # a score that the method does not know
            found = explainer(images, **question).logits.detach()
            _expect_close(found, own, f"logits with {question} and the model's own")
    _expect_close(explainer.classes(images, 2).logits, own, "logits of several classes and the model's own")


def follows_changes_in_place(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """A network that changes tensors in place, through views too, is explained like its twin that does not, or
    refused. Explainers that fit none of the two, or name a layer of `model`, have nothing to show."""
    with contextlib.suppress(ContrexError):
        expected, found = (kind(Changing(images, in_place=in_place))(images, target=0) for in_place in (False, True))
        _expect_close(found.logits, expected.logits, "logits of a network that changes in place and of its twin")
        _expect_close(found.heatmap, expected.heatmap, "the map of a network that changes in place and of its twin")


def explains_as_a_fresh_one(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """What an explainer has seen before changes nothing: images of another size, the modes between, another
    classifier, small logits that were linear in the features until now."""
    model = copy.deepcopy(model)
    explainer = kind(model)
    explainer(images, target=0)
    larger = nn.functional.interpolate(images, scale_factor=(1.0, 2.0))
    with contextlib.suppress(Exception):  # a network for one size has no more to show
        with torch.no_grad():
            model(larger.clone())
        _expect_fresh(explainer, kind, larger, "at another size")
    model.train()
    model.eval()
    turn_classifier(model)
    _expect_fresh(explainer, kind, images, "with another classifier")
    with contextlib.suppress(ContrexError):
        explainer = kind(Clipping(images))
        explainer(images, target=0)
        _expect_fresh(explainer, kind, 4 * images, "where the head is no longer linear")


def _expect_fresh(explainer: Explainer, kind: Kind, images: Tensor, when: str) -> None:
    expected = kind(explainer.model)(images, target=0).heatmap
    found = explainer(images, target=0).heatmap
    _expect_close(found, expected, f"the map of a used explainer and of a fresh one, {when},")


def refuses_what_it_cannot_do(kind: Kind, model: nn.Module, images: Tensor) -> None:
    """Impossible targets, contrasts and images are refused by an `ArgumentError`."""
    explainer = kind(model)
    wrong: list[tuple[Tensor, dict[str, Any]]] = [
        (images, {"target": 10**6}),
        (images, {"target": [0] * (len(images) + 1)}),
        (images, {"contrast": "other"}),
        (images, {"target": 0, "contrast": 0}),
        (images, {"score": "odds"}),
        (images[0], {}),
        (images.long(), {}),
    ]
    for pixels, options in wrong:
        try:
            explainer(pixels, **options)
        except ArgumentError:
            continue
        raise ContractError(f"images {list(pixels.shape)} {pixels.dtype} with {options} were not refused")


CHECKS: Mapping[str, Callable[[Kind, nn.Module, Tensor], None]] = {
    check.__name__: check
    for check in (
        gives_what_it_promises,
        explains_a_batch_as_single_images,
        answers_classes_as_single_calls,
        leaves_no_trace,
        works_in_every_context,
        survives_autocast,
        serves_several_threads,
        explains_wrapped_models,
        frees_its_memory,
        is_differentiable_or_says_so,
        explains_the_models_own_logits,
        follows_changes_in_place,
        explains_as_a_fresh_one,
        refuses_what_it_cannot_do,
    )
}


def _expect_same(before: Mapping[str, list[object]], after: Mapping[str, list[object]], what: str) -> None:
    for name, values in before.items():
        for old, new in zip(values, after[name], strict=True):
            same = torch.equal(old, new) if isinstance(old, Tensor) and isinstance(new, Tensor) else old == new
            _expect(bool(same), f"{what} changed the model's or the process's {name}")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractError(otherwise)


def _expect_close(found: Tensor, expected: Tensor, what: str, *, scale: Tensor | None = None) -> None:
    """Equal up to rounding, measured against the largest value of `scale` (of `expected` without one)."""
    tolerance = 1e-8 if expected.dtype == torch.float64 else 1e-3
    _expect(found.shape == expected.shape, f"{what} differ in shape: {list(found.shape)}, {list(expected.shape)}")
    largest = float((expected if scale is None else scale).abs().max())
    difference = float((found - expected).abs().max())
    _expect(difference <= tolerance * largest, f"{what} differ by {difference:.3g}, the largest value is {largest:.3g}")
