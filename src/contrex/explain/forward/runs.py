"""Which of its runs in a pass a module is explained by: of a shared layer, of an encoder of two images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from torch import nn

from contrex.explain.forward.capture import Run
from contrex.models.beside import has_inputs
from contrex.models.graph import Graph


class Runs:
    """The runs of each module in one pass, in order, with the graph that tells which saw the images."""

    def __init__(self, runs: Sequence[Run], graph: Graph) -> None:
        self._runs, self._graph = runs, graph
        self._has_inputs = has_inputs()

    @cached_property
    def _numbers(self) -> Counter[nn.Module]:
        """How often modules ran; of networks with several inputs, on what depends on the images alone."""
        return Counter(run.module for run in self._runs if not self._has_inputs or self._sees_images(run))

    def is_only_one(self, run: Run) -> bool:
        """Whether a module ran but this once, as far as the images are concerned."""
        return self._numbers[run.module] == 1 and (not self._has_inputs or self._sees_images(run))

    def of(self, module: nn.Module) -> Sequence[Run]:
        """The runs of a module."""
        return [run for run in self._runs if run.module is module]

    def number(self, run: Run) -> int | None:
        """Which of its module's runs it is; None where that ran once."""
        runs = self.of(run.module)
        return None if len(runs) == 1 else next(number for number, one in enumerate(runs) if one is run)

    def only_on_images(self, module: nn.Module) -> int | None:
        """Which of a module's runs is the only one that saw the images: the other one of a pair is no matter; None
        where that are several, or none."""
        found = [number for number, run in enumerate(self.of(module)) if self._sees_images(run)]
        return found[0] if len(found) == 1 else None

    def _sees_images(self, run: Run) -> bool:
        return run.edge is not None and self._graph.reaches_source(run.edge[0])
