"""What keeps a network from being explained, in the words of whoever called.

Torch says what went wrong in a kernel or a graph; here is what it means for an explanation, and the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from contrex.errors import ArgumentError, LayerError
from contrex.models.outputs import what_is_read
from contrex.ops.scores import ALONE, Question, class_logits

WITHOUT_GRADIENTS = "ScoreCAM with a `layer`, RISE and Occlusion need no gradient"


@contextmanager
def in_our_words(method: str, model: nn.Module) -> Iterator[None]:
    """Turn what torch raises where gradients are hidden or missing into the error that says so."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        told = _told(error, method, model)
        if told is None:
            raise
        raise told from error


def no_gradient(where: str, model: nn.Module) -> LayerError:
    """The error for logits that do not depend, as far as autograd knows, on `where`."""
    return LayerError(
        f"no gradient reaches {where}: {type(model).__name__} runs what follows it without (torch.no_grad(), quantised "
        f"layers, .detach() or reentrant checkpointing inside its forward?){_of_score()}. {WITHOUT_GRADIENTS}."
    )


def _of_score() -> str:
    """What else may be the reason where a score of the user's own is explained."""
    what = what_is_read()
    return f", or `score` {what} has none (argmax, .detach(), a comparison?)" if what else ""


def check_gradient(logits: Tensor, where: str, model: nn.Module) -> None:
    """Refuse logits without a graph, and quantised layers in it: torch takes their gradient for zero and goes on along
    the paths beside them, which would give a wrong map without a word.

    Raises:
        LayerError: no gradient, or not all of it, reaches `where`.
    """
    has_quantised = any(".quantized" in type(module).__module__ for module in model.modules())
    hidden = has_quantised and any("NotImplemented" in node.name() for node in graph_nodes(logits))
    if hidden or not logits.requires_grad:
        raise no_gradient(where, model)


def graph_nodes(output: Tensor) -> Iterator[Any]:
    """Every node of the graph behind `output`, once."""
    waiting: list[Any] = [output.grad_fn]
    seen = set(waiting)  # it holds the nodes, whose Python side would otherwise be made anew
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        yield node
        after = {following for following, _ in node.next_functions} - seen
        seen |= after
        waiting.extend(after)


def scripted(what: str) -> LayerError:
    """The error for a method that has to look into a ScriptModule."""
    return LayerError(
        f"{what} a ScriptModule (torch.jit), whose inner layers cannot be looked into: explain the network as it was "
        "before torch.jit, or its pixels by Gradient, IntegratedGradients, RISE or Occlusion."
    )


def check_scores(images: Tensor, logits: Tensor, question: Question) -> None:
    """Refuse a score that is NaN or infinite; classes without weight in it may be masked by -inf.

    Raises:
        ArgumentError: a weighed score of an image, or its weight, is not finite; the message says which class's.
    """
    outputs = question.outputs(logits.detach())[:, None]
    broken = ((question.rows != 0) & ~outputs.isfinite()) | ~question.rows.isfinite()
    if not bool(broken.any()):
        return
    image, _, weighed = broken.nonzero()[0].tolist()
    if not bool(images[image].isfinite().all()):
        raise ArgumentError(f"`images` must be finite, image {image} has NaN or infinite pixels.")
    row = class_logits(logits, question.task)[image].detach()
    if question.task == ALONE:
        raise ArgumentError(
            f"`score` {what_is_read()} is {row.tolist()} for image {image}: check the function, and the model for NaN."
        )
    wrong = weighed if not bool(row[weighed].isfinite()) else int((~row.isfinite()).nonzero()[0])
    value, num_wrong = float(row[wrong]), int((~row.isfinite()).sum())
    if value != value:
        raise ArgumentError(
            f"the model gives NaN for image {image} ({num_wrong} of {len(row)} logits, class {wrong} the first): check "
            "its weights for NaN, and its activations for overflow."
        )
    raise ArgumentError(
        f"the logit of class {wrong} is {value} for image {image}, so the score asked for is not finite: take a "
        "`target` and a `contrast` without this class, or give the model's own logits, before classes are masked."
    )


def _told(error: RuntimeError, method: str, model: nn.Module) -> ArgumentError | None:
    said = str(error)
    if isinstance(error, CheckpointError) or "use_reentrant=True" in said:
        return ArgumentError(
            f"{type(model).__name__} computes activations again in the backward pass (gradient checkpointing), as the "
            f"model alone would, not as {method} needs them: turn it off for the call, "
            "`model.set_grad_checkpointing(False)` in timm, `gradient_checkpointing_disable()` in transformers."
        )
    if "does not have a grad_fn" in said or "appears to not have been used in the graph" in said:
        return no_gradient("what is explained", model)
    return None
