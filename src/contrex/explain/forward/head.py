"""What the classifier at a model's end gets in an ordinary pass: the features of the encoder before it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.forward.capture import hooked, read_output
from contrex.models.compiled import uncompiled
from contrex.models.layers import layer_name


def forward_features(model: nn.Module, images: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
    """What `head` gets `[N,D]` and the logits `[N,K]`, both in the graph of one ordinary forward pass.

    `head` is the classifier at the model's end (`contrex.models.classifier_head`), so the first are the features of the
    encoder before it, after any dropout there. The model runs as it stands, in its own mode and under the caller's
    autocast, and records gradients as the caller asks. Logits are float32 or better, features as the head gets them.

    Raises:
        LayerError: `head` did not run or ran several times, or what it gets is not one row of features per image.
    """
    seen: list[tuple[object, ...]] = []
    owner = threading.get_ident()

    # It only looks, and keeps the inputs with their graph: the features are trained through.
    def keep(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if threading.get_ident() == owner:
            seen.append(inputs)

    with uncompiled(), hooked([head], keep):
        logits = read_output(model(images.clone()), model, images)
    if len(seen) != 1:
        raise LayerError(
            f"`head` {layer_name(head, model)!r} must run once in a forward pass, it ran {len(seen)} times: choose the "
            "layer that gives the logits."
        )
    return _rows(seen[0], head, model, images), logits


@contextlib.contextmanager
def head_rows(head: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Keep what `head` gets and gives, `[n,D]` and `[n,K]` without a graph, each time it runs in this thread inside.

    Where the head's output is the logits, those of an explanation tell which of its passes had the features of the
    images themselves. Passes that give the head anything but one row per image are left out.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    owner = threading.get_ident()

    # It only looks, and detaches what it keeps: the graph of each pass would stay in memory with it.
    def keep(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        rows = inputs[0] if len(inputs) == 1 and threading.get_ident() == owner else None
        if isinstance(rows, Tensor) and isinstance(output, Tensor) and rows.ndim == output.ndim == 2:
            seen.append((rows.detach(), output.detach()))

    with hooked([head], keep):
        yield seen


def _rows(inputs: tuple[object, ...], head: nn.Module, model: nn.Module, images: Tensor) -> Tensor:
    """The only input of `head`, one row per image."""
    features = inputs[0] if len(inputs) == 1 else None
    rows = features.flatten(1) if isinstance(features, Tensor) and features.ndim > 1 else None
    fits = rows is not None and len(rows) == len(images)
    if rows is None or not fits or (isinstance(head, nn.Linear) and rows.shape[1] != head.in_features):
        got = f"a tensor {list(features.shape)}" if isinstance(features, Tensor) else f"{len(inputs)} inputs"
        raise LayerError(
            f"`head` {layer_name(head, model)!r} must get one row of features per image, [{len(images)},D], it gets "
            f"{got}: choose the layer that gives the logits."
        )
    return rows
