"""Checkpoints of self-supervised training: where an encoder's weights lie in them, and what beside it is left out.

    swav            conv1.weight, layer1..., beside projection_head.* and prototypes.*
    moco            encoder_q.* (MoCo, v2) or base_encoder.* (v3) under "state_dict"; its fc or head is the projection;
                    beside encoder_k.* or momentum_encoder.*, predictor.*, queue and queue_ptr
    dino            backbone.* under "teacher", beside head.*; dino-student has the student's
    lightning       model.* under "state_dict", as a LightningModule with the network in `self.model` saves it

Each key of a file is loaded, or belongs to a module that its layout names as left out; any other is an error. Wrapper
prefixes (`module.`, `_orig_mod.`) go first. Backbones published by themselves, and the files of torchvision and timm,
are `plain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from contrex.errors import WeightsError, unknown_name

WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Layout:
    """`under` is the entry of the file that holds the weights, where there is one of that name; `encoder` the prefixes
    that the encoder's keys may have; `left_out` the modules beside it, `projection` those inside it, that only the
    pretraining used. Keys that start with a `sign` are found in no other layout."""

    under: str = "state_dict"
    encoder: tuple[str, ...] = ("",)
    left_out: tuple[str, ...] = ()
    projection: tuple[str, ...] = ()
    sign: tuple[str, ...] = ()


LAYOUTS: dict[str, Layout] = {
    "swav": Layout(left_out=("projection_head", "prototypes"), sign=("projection_head.", "prototypes.")),
    "moco": Layout(
        encoder=("encoder_q.", "base_encoder."),
        left_out=("encoder_k", "momentum_encoder", "predictor", "queue", "queue_ptr"),
        projection=("fc", "head"),
        sign=("encoder_q.", "base_encoder."),
    ),
    "dino": Layout("teacher", encoder=("backbone.",), left_out=("head",), sign=("teacher", "backbone.")),
    "dino-student": Layout("student", encoder=("backbone.",), left_out=("head",)),
    "lightning": Layout(encoder=("model.",), sign=("model.",)),
}


def plain_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes of wrappers in their names, however those are nested."""
    for prefix in WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            return plain_keys({key.removeprefix(prefix): value for key, value in state.items()})
    return dict(state)


def encoder_weights(state: Mapping[str, Tensor], layout: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The encoder's tensors by their names in the network, and the modules of the file that are left out.

    `plain` leaves everything as it is.

    Raises:
        UnknownNameError: no such layout.
        WeightsError: no key is where the layout has the encoder, or one is where it has nothing.

    >>> from torch import zeros
    >>> file = {"module.encoder_q.conv1.weight": zeros(1), "module.encoder_q.fc.0.bias": zeros(1)}
    >>> encoder_weights({**file, "module.queue": zeros(1)}, "moco")
    ({'conv1.weight': tensor([0.])}, ('fc', 'queue'))
    """
    state = plain_keys(state)
    if layout == "plain":
        return state, ()
    if layout not in LAYOUTS:
        raise unknown_name("`model.layout`", layout, ("plain", *LAYOUTS))
    known = LAYOUTS[layout]
    prefix = next((prefix for prefix in known.encoder if any(key.startswith(prefix) for key in state)), None)
    if prefix is None:
        raise WeightsError(
            f"`model.layout` {layout} has its weights under {' or '.join(known.encoder)}, and no key starts so; there "
            f"are {', '.join(list(state)[:3])}, ...{_hint(state)}"
        )
    beside = {key: _of(key, known.left_out) for key in state if not key.startswith(prefix) or _of(key, known.left_out)}
    if unknown := [key for key, module in beside.items() if not module]:
        raise WeightsError(
            f"`model.layout` {layout} has its weights under {prefix} and does not know {', '.join(unknown[:4])}"
            f"{', ...' if len(unknown) > 4 else ''}: save the state_dict of the network alone, for layout plain."
        )
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key not in beside}
    projection = {key: module for key in inner if (module := _of(key, known.projection))}
    kept = {key: value for key, value in inner.items() if key not in projection}
    return kept, tuple(sorted({*beside.values(), *projection.values()}))


def looks_like(keys: Iterable[str]) -> str | None:
    """The layout whose sign one of `keys` begins with, if any."""
    names = [key.removeprefix("module.") for key in keys]
    return next((name for name, known in LAYOUTS.items() if any(key.startswith(known.sign) for key in names)), None)


def _hint(keys: Iterable[str]) -> str:
    found = looks_like(keys)
    return f" It looks like the layout {found}." if found else ""


def _of(key: str, modules: Iterable[str]) -> str:
    """The one of `modules` that `key` is, or is in; otherwise an empty text."""
    return next((module for module in modules if key == module or key.startswith(f"{module}.")), "")
