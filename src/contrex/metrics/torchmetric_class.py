"""The class behind `contrex.metrics.as_torchmetric`, the only module that imports torchmetrics."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from contrex.metrics.per_sample import PerSampleMetric


class TorchMetric(Metric):
    """Keeps the rows of a `PerSampleMetric`, which makes them from its arguments and a number from them."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, metric: PerSampleMetric, **options: Any) -> None:
        # Without a cache `compute` is right after `merge_state` too.
        super().__init__(**{"compute_with_cache": False, **options})
        self.metric = copy.deepcopy(metric)
        self.metric.reset()
        # torchmetrics guards this attribute against assignment, and it is the metric's here.
        self.__dict__["higher_is_better"] = metric.higher_is_better
        # A MetricCollection hands on the arguments that `update` has by name: the metric's own.
        self._update_signature = inspect.signature(self.metric.update)
        # A process without images contributes an empty tensor of this dtype, which has to be the others'.
        self.set_dtype(torch.float64)
        # The metric's name is part of the state's: a MetricCollection lets metrics share a state when the names and
        # the values after one batch agree, and top-1 and top-5 agree on a batch that is all right. Rows are kept end to
        # end, [N D], because torchmetrics joins what processes have along the only axis that an empty one has too.
        self._state = f"{metric.name}_rows"
        self.add_state(self._state, default=[], dist_reduce_fx="cat")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch; the arguments are those of the metric."""
        self.metric.reset()
        self.metric.update(*args, **kwargs)
        getattr(self, self._state).append(self.metric.rows(own=True).flatten().to(self.device))

    def compute(self) -> Tensor:
        """The metric's number for the images counted."""
        parts = getattr(self, self._state)
        if not isinstance(parts, Tensor):  # a tensor after synchronising
            parts = torch.cat([torch.empty(0, dtype=torch.float64, device=self.device), *parts])
        return self.metric.mean_of(parts.view(-1, self.metric.num_columns))
