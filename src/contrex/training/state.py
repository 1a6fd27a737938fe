"""What a checkpoint holds of a run: all that a resumed one goes on from, and all that other commands read of it.

The names in the file stay as they are (`RunState.to_checkpoint`), so that a checkpoint of before can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from contrex.data.labelled import TrainingImages, draw_of
from contrex.data.readers.unlabelled import UnlabelledImages
from contrex.errors import CheckpointError
from contrex.records import from_plain, to_plain
from contrex.settings import Recipe

REQUIRED = ("recipe", "classes", "steps", "place", "epochs")
"""What no checkpoint is without. A run cannot go on without `optimizers`; the other names came later."""


@dataclass
class Place:
    """How far a run has come: `epoch`, `phase` of the epoch and `batch` of the next step, steps done, best validation
    accuracy so far; the `way` that the weights have come from the first ones to the trained ones, below 1 where a run
    has gone back at its end, and the `scale` that its logits were multiplied by there."""

    epoch: int = 0
    phase: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0
    way: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True)
class Fingerprint:
    """What tells the images of a run from others without reading them; None where a checkpoint does not say."""

    classes: tuple[str, ...]
    num_images: int | None
    num_unlabelled: int = 0
    labelled_sha256: str | None = None
    """Of the list of the labelled images, where not all are (`contrex.data.labelled`)."""
    draw_sha256: str | None = None
    """Of photos without labels alone: which are kept out, and which are not (`contrex.data.readers.unlabelled`)."""


def fingerprint(images: TrainingImages, classes: Sequence[str] = ()) -> Fingerprint:
    """The fingerprint of the images that a run is trained on; `classes` are the network's, where the images know
    none."""
    draw = draw_of(images.labelled)
    return Fingerprint(
        classes=tuple(images.labelled.classes or classes),
        num_images=len(images.labelled),
        num_unlabelled=0 if images.unlabelled is None else len(images.unlabelled),
        labelled_sha256=None if draw is None else draw.sha256,
        draw_sha256=images.labelled.draw_sha256 if isinstance(images.labelled, UnlabelledImages) else None,
    )


@dataclass(frozen=True, eq=False)
class RunState:
    """A run between two steps, by value.

    `steps` and `optimizers` are the state dicts of each phase's, `averages` those of `training.ema` by parameter; all
    tensors are whole, also where processes share them out.
    """

    recipe: Recipe
    data: Fingerprint
    place: Place
    num_epochs: int
    steps: Sequence[Mapping[str, Any]]
    optimizers: Sequence[Mapping[str, Any]]
    averages: Mapping[str, Tensor]
    explains: Sequence[str] = ()
    """The layers that were explained so far, with their grids, in words."""
    world_size: int = 1
    """Processes that the run was on last."""

    def to_checkpoint(self) -> dict[str, Any]:
        """The content of a checkpoint: tensors and plain values by their names."""
        return {
            "steps": list(self.steps),
            "optimizers": list(self.optimizers),
            "averages": self.averages,
            "place": dict(vars(self.place)),
            "epochs": self.num_epochs,
            "finished": self.place.epoch == self.num_epochs,
            "explains": list(self.explains),
            "recipe": to_plain(self.recipe),
            "classes": list(self.data.classes),
            "num_images": self.data.num_images,
            "num_unlabelled": self.data.num_unlabelled,
            "labelled_sha256": self.data.labelled_sha256,
            **({} if self.data.draw_sha256 is None else {"draw_sha256": self.data.draw_sha256}),
            "world_size": self.world_size,
            "torch": str(torch.__version__),
        }

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> RunState:
        """Read the content of a checkpoint, of this contrex or of one before it.

        Raises:
            CheckpointError: something is missing that every checkpoint has, or the place has another form.
            RecordError, ArgumentError: the recipe in it is none of this contrex.
        """
        missing = [name for name in REQUIRED if name not in content]
        if missing:
            raise CheckpointError(f"the checkpoint has no {', '.join(missing)}: contrex did not write it as a run's.")
        place, known = content["place"], {field.name for field in fields(Place)}
        if isinstance(place, Mapping) and "ended" in place:  # runs once ended before their last epoch
            done = {"epoch": content["epochs"]} if place["ended"] else {}
            place = {**{name: value for name, value in place.items() if name != "ended"}, **done}
        if not isinstance(place, Mapping) or not place.keys() <= known:
            raise CheckpointError(f"`place` in the checkpoint must have {', '.join(sorted(known))}, got {place!r}.")
        return cls(
            recipe=from_plain(content["recipe"], Recipe, where="recipe"),  # which may have fewer fields than today
            data=Fingerprint(
                classes=tuple(content["classes"]),
                num_images=content.get("num_images"),
                num_unlabelled=content.get("num_unlabelled", 0),
                labelled_sha256=content.get("labelled_sha256"),
                draw_sha256=content.get("draw_sha256"),
            ),
            place=Place(**place),
            num_epochs=content["epochs"],
            steps=content["steps"],
            optimizers=content.get("optimizers", ()),
            averages=content.get("averages", {}),
            explains=content.get("explains", ()),
            world_size=content.get("world_size", 1),
        )
