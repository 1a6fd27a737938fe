"""What a retrofit would take: photos, parameters, memory, and time from a few steps that are really made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from contrex.devices import device_named
from contrex.methods.retrofit import RetrofitStep
from contrex.retrofit.offset import CHUNK, find_offset
from contrex.retrofit.order import Order
from contrex.training.loop import epoch_batches, train_step
from contrex.training.preparing import prepare
from contrex.training.timing import Pace

STEPS = 2
"""Steps that are made, each twice: when its photos are new, and when they are kept."""


@dataclass(frozen=True)
class Preview:
    """What a retrofit would take."""

    num_trained: int
    """Photos that it is trained on."""
    num_kept_out: int
    num_parameters: int
    num_trained_parameters: int
    explains: str
    trunk: str | None
    """The last layer that is run once for network and teacher; None where they have nothing in common."""
    kept_gib: float
    """The memory for what is kept of the photos."""
    num_kept: int
    epochs: int
    steps_per_epoch: int
    first: float
    """Seconds of a step when its photos are new."""
    later: float
    """Seconds of it when they have been seen, and their views where these come again."""
    period: int
    """Epochs in which all views are new; 0 where they always are."""
    views: float
    """Images that are made of each photo and go through the trunk, in an epoch."""

    @property
    def seconds(self) -> float:
        """The time of all steps."""
        # photos and views take as long as each other: where the views alone are new, the photos' time is saved
        halves = max(0, min(self.period, self.epochs) - 1)
        half = self.first - (self.first - self.later) / (1 + self.views)
        return self.steps_per_epoch * (self.first + halves * half + (self.epochs - 1 - halves) * self.later)

    def lines(self) -> Iterator[str]:
        """The preview as text."""
        share = self.num_trained_parameters / self.num_parameters
        yield f"photos      {self.num_trained:,} to train on, {self.num_kept_out:,} kept out"
        yield f"trained     {self.num_trained_parameters:,} of {self.num_parameters:,} parameters ({share:.0%})"
        yield f"explained   {self.explains}"
        if self.trunk is None:
            yield "kept        nothing: no part of the network stays as it is before all that is trained and explained"
        else:
            kept = "all" if self.num_kept == self.num_trained else f"{self.num_kept:,} of {self.num_trained:,}"
            views = f" and what is made of them in {self.period} epochs" if self.period and self.views else ""
            yield f"kept        what {self.trunk} gives for {kept} plain photos{views}: {self.kept_gib:.2f} GiB"
        yield (
            f"time        {self.epochs} epochs of {self.steps_per_epoch} steps, {self.first:.2g} s a step at first, "
            f"{self.later:.2g} s later: {self.seconds / 60:.1f} min, and the checks after each epoch"
        )


def previewed(order: Order) -> Preview:
    """Make a few steps of the run of `order` in a folder that is thrown away, and return what all would take.

    Errors are those of `Order.check`, of `contrex.retrofit.offset.find_offset`, and of the run's start.
    """
    classifier = order.check()
    if order.offset:
        device = device_named(order.recipe.training.device)
        find_offset(classifier, order.recipe, share=0.0, device=device, num_photos=CHUNK)  # where there can be none
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(order.recipe, Path(folder) / "run", console=Console(quiet=True))
        with closing(run.loader), closing(run.to_validate):
            first, later = [], []
            for parts in epoch_batches(run, Pace()):
                first.append(_seconds(train_step, run, parts))
                later.append(_seconds(train_step, run, parts))
                if len(first) > STEPS or run.place.batch >= run.steps_per_epoch:
                    break
        (phase,) = run.plan.phases
        assert isinstance(phase.step, RetrofitStep)
        trunk, num = phase.step.trunk, run.data.num_images or 0
        num_kept = min(num, trunk.num_images_at_most)
        return Preview(
            num_trained=num,
            num_kept_out=run.to_validate.total,
            num_parameters=sum(p.numel() for p in phase.step.network.parameters()),
            num_trained_parameters=sum(p.numel() for p in phase.parameters),
            explains=phase.step.explains or "the pixels",
            trunk=trunk.end,
            kept_gib=num_kept * trunk.image_bytes / 2**30,
            num_kept=num_kept,
            epochs=order.recipe.training.epochs,
            steps_per_epoch=run.steps_per_epoch,
            first=median(first[1:] or first),  # the first step of all looks the network over
            later=median(later[1:] or later),
            period=order.recipe.augmentation.period or 0,
            views=(0.0 if order.method.view_layer else order.method.views_share) + order.method.incomplete,
        )


def _seconds(act: Callable[..., object], *given: object) -> float:
    began = time.perf_counter()
    act(*given)
    return time.perf_counter() - began
