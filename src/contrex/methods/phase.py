"""A method as phases: which step moves which parameters, and in what order.

Most methods have one phase. Contrastive ones have two, the encoder and a classifier on it, which take turns in every
epoch or follow each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from contrex.methods.step import Step
from contrex.settings import Augmentation, Optimizer, Recipe, Schedule


@dataclass(frozen=True, eq=False)
class Phase:
    """One objective, what it moves, how, and on which views.

    `name` stands before the names of its terms in the log; `epochs` is how many it has in the whole run.
    """

    name: str
    step: Step
    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    schedule: Schedule
    augmentation: Augmentation
    epochs: int
    head: Sequence[nn.Parameter] = ()
    """Those of its parameters that have the classifier's own rate, `optimizer.head_lr`."""
    frozen: Sequence[nn.Module] = ()
    """Modules that stay in eval mode; their parameters are not among its own."""
    trains_classifier: bool = True
    """Whether the classifier is better afterwards: otherwise there is nothing to validate."""

    def term(self, name: str) -> str:
        """The name of a term of this phase in the log."""
        return f"{self.name}_{name}" if self.name else name

    def begin(self, epoch: int) -> None:
        """Ready for an epoch: gradients for its own parameters only, its modules in their modes."""
        own = {id(parameter) for parameter in self.parameters}
        for parameter in self.step.parameters():
            parameter.requires_grad_(id(parameter) in own)
        self.step.train()
        for module in self.frozen:
            module.eval()
        self.step.begin_epoch(epoch)


@dataclass(frozen=True, eq=False)
class Plan:
    """The phases of a run, and for each epoch which of them it has, by index."""

    phases: Sequence[Phase]
    epochs: Sequence[Sequence[int]]

    def epochs_before(self, epoch: int, phase: int) -> int:
        """How many epochs of `phase` come before `epoch`."""
        return sum(phase in phases for phases in self.epochs[:epoch])

    def modules(self) -> Iterator[Step]:
        """The steps, each of which has its share of the network's state."""
        return (phase.step for phase in self.phases)

    def finish(self) -> None:
        """Eval mode, and every parameter free to move again."""
        for step in self.modules():
            step.eval().requires_grad_(True)


def one_phase(step: Step, recipe: Recipe) -> Plan:
    """A single step that moves everything, with the recipe's own settings."""
    phase = Phase(
        name="",
        step=step,
        parameters=list(step.parameters()),
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        augmentation=recipe.augmentation,
        epochs=recipe.training.epochs,
    )
    return Plan([phase], [[0]] * recipe.training.epochs)
