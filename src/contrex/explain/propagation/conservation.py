"""Where relevance stays on its way from the score to the input."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Conservation:
    """What became of the relevance `started` with: it `arrived` at the explained layer, or stayed on the way.

    `biases` is what biases kept (also those of batch and layer norm), `constants` what parameters and constants kept
    that are added or joined to data (position embeddings, class tokens, masks), and `softmax` what stays in the offset
    of the softmax's Taylor expansion.
    """

    started: float
    arrived: float
    biases: float
    constants: float
    softmax: float

    @property
    def error(self) -> float:
        """`|arrived + biases + constants + softmax - started| / |started|`: what no rule accounts for.

        Stabilisers take it, and rules that do not conserve: z-plus where nothing excites an output, and alpha-beta
        where nothing inhibits one.
        """
        found = self.arrived + self.biases + self.constants + self.softmax
        if self.started == 0:
            return 0.0 if found == 0 else float("inf")
        return abs(found - self.started) / abs(self.started)


class Ledger:
    """What stays where, added up over one backward pass."""

    def __init__(self) -> None:
        self.amounts = dict.fromkeys(("started", "biases", "constants", "softmax"), 0.0)

    def add(self, where: str, relevance: Tensor) -> None:
        """Count relevance as one amount; waits for the device."""
        self.amounts[where] += float(relevance.detach().double().sum())

    def balance(self, arrived: float) -> Conservation:
        """The conservation of the pass, once the relevance that `arrived` is known."""
        return Conservation(arrived=arrived, **self.amounts)
