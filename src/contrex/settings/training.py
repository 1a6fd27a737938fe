"""The settings of training: random views, optimiser, schedule and loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from contrex.errors import ArgumentError
from contrex.settings.ranges import check, check_at_least, check_positive


@dataclass(frozen=True)
class Augmentation:
    """How a random view is made: by a resized crop and a horizontal flip (the transform T of CGC, section 3.1).

    Colour jitter and greyscale (SimCLR, appendix A) follow where they are set.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area that a crop keeps."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest ratio of a crop's width to its height."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strengths of brightness, contrast, saturation and hue. Factors are drawn from 1 - strength (at least 0) to
    1 + strength; the hue turns by -strength to strength of the colour circle."""
    jitter_probability: float = 0.8
    """Probability that a view's colours are jittered, in all four ways and a random order."""
    grayscale: float = 0.0
    """Probability that a view is grey."""
    where: Literal["worker", "device"] = "worker"
    """Where views are made: in the loader's workers (crops by Pillow, antialiased), or on the training device (all
    crops of a batch in one resampling, colours image by image)."""
    period: int | None = None
    """After so many epochs the same views come again; None is never."""

    def __post_init__(self) -> None:
        (low, high), (narrow, wide) = self.scale, self.ratio
        check_at_least(1, "augmentation", period=self.period)
        check(0 < low <= high <= 1, "augmentation.scale", self.scale, "(low, high) with 0 < low <= high <= 1")
        check(0 < narrow <= wide < math.inf, "augmentation.ratio", self.ratio, "(low, high) with 0 < low <= high")
        for name in ("flip", "jitter_probability", "grayscale"):
            check(0 <= (p := getattr(self, name)) <= 1, f"augmentation.{name}", p, "a probability, from 0 to 1")
        jitter = self.color_jitter
        in_range = all(0 <= strength < math.inf for strength in jitter) and jitter[-1] <= 0.5
        check(in_range, "augmentation.color_jitter", jitter, "strengths of at least 0, and of the hue at most 0.5")

    @property
    def recolours(self) -> bool:
        """Whether a view can change colours."""
        return self.grayscale > 0 or (self.jitter_probability > 0 and any(self.color_jitter))


@dataclass(frozen=True)
class Optimizer:
    """SGD or AdamW, with an optional clip of the gradient's norm."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    """The largest learning rate."""
    head_lr: float | None = None
    """The largest learning rate of the classifier, the last linear layer; None is `lr`. One schedule scales both."""
    momentum: float = 0.9
    """SGD's momentum, or AdamW's beta1."""
    nesterov: bool = False
    """Use Nesterov's momentum (SGD only)."""
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    """Clip the norm of the whole gradient to this; None does not clip."""

    def __post_init__(self) -> None:
        check_positive("optimizer", lr=self.lr, head_lr=self.head_lr, clip_norm=self.clip_norm)
        check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "from 0 to below 1")
        check_at_least(0, "optimizer", weight_decay=self.weight_decay)
        if self.nesterov and self.name != "sgd":
            raise ArgumentError(f"`optimizer.nesterov` is SGD's, {self.name} has none: add --optimizer.no-nesterov.")
        if self.nesterov and self.momentum == 0:
            raise ArgumentError(
                "`optimizer.nesterov` needs `optimizer.momentum` > 0: set one, or add --optimizer.no-nesterov."
            )


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the run, changed at every step."""

    name: Literal["constant", "step", "cosine"] = "cosine"
    warmup_epochs: float = 0.0
    """Epochs of a linear warm-up from 0."""
    milestones: tuple[int, ...] = (30, 60)
    """Epochs at which the schedule `step` multiplies the rate by `gamma`."""
    gamma: float = 0.1
    final: float = 0.0
    """The last rate of the schedule `cosine`, as a share of the largest."""

    def __post_init__(self) -> None:
        check_at_least(0, "schedule", warmup_epochs=self.warmup_epochs)
        rising = all(one < next_ for one, next_ in pairwise((0, *self.milestones)))
        check(rising, "schedule.milestones", self.milestones, "rising epochs, from 1 on")
        check_positive("schedule", gamma=self.gamma)
        check(0 <= self.final <= 1, "schedule.final", self.final, "a share of the peak rate, from 0 to 1")


@dataclass(frozen=True)
class Training:
    """The training loop: how long, how large, how exact, and when to save."""

    epochs: int = 90
    batch_size: int = 256
    """Images of one step, shared by all processes and by the parts of `accumulate`."""
    accumulate: int = 1
    """Go through each batch in this many parts, which takes less memory. Not for losses with negatives: a part has
    fewer of them."""
    seed: int = 0
    """The seed of initialisation, order and augmentation. On a CPU, two runs with one seed are equal, bit by bit."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs the network under autocast; heatmaps and losses stay float32."""
    channels_last: bool = True
    device: str = "auto"
    """`auto` is CUDA if there is one, else the CPU."""
    workers: int = 0
    """Processes that load images; the result does not depend on their number."""
    freeze: tuple[str, ...] = ()
    """Modules of the network that stay as they are, in eval mode, such as `conv1 bn1 layer1`: neither weights nor
    batch-norm statistics change. `trunk` is all but the last layer, for a linear probe."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.999. The averaged weights are then validated,
    evaluated and exported; with None the trained ones are."""
    sync_batch_norm: bool = False
    """On several GPUs, batch norm takes its statistics over the images of all, instead of each GPU over its own."""
    shard: bool = False
    """Share the weights and the optimiser's state out among the processes (FSDP2); for methods of one phase."""
    compile: bool = False
    """Use torch.compile for what comes before the explained layer; for cross-entropy, for the whole network."""
    validate_every: int = 1
    """Validate and write a checkpoint each time this many epochs have passed, and after the last one."""
    checkpoint_minutes: float = 5.0
    """Also write a checkpoint when this many minutes have passed since the last one."""
    loggers: tuple[str, ...] = ()
    """Where the numbers of the log also go: `tensorboard`, `wandb`, `mlflow`, or `FILE.py:CLASS`."""

    def __post_init__(self) -> None:
        check_at_least(1, "training", epochs=self.epochs, batch_size=self.batch_size, accumulate=self.accumulate)
        check(self.ema is None or 0 < self.ema < 1, "training.ema", self.ema, "between 0 and 1")
        check(
            self.batch_size % self.accumulate == 0,
            "training.batch_size",
            self.batch_size,
            f"a multiple of `training.accumulate`, {self.accumulate}",
        )
        if self.compile and self.shard:
            raise ArgumentError("`training.compile` and `training.shard` exclude each other: leave one of them out.")
        check_at_least(1, "training", validate_every=self.validate_every)
        check_at_least(0, "training", seed=self.seed, workers=self.workers)
        check(self.checkpoint_minutes >= 0, "training.checkpoint_minutes", self.checkpoint_minutes, "at least 0")
