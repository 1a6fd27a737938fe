"""Why a run stops before its end: a signal, torchrun that is gone, or a NaN."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from contrex import ranks
from contrex.data.views.batch import Batch
from contrex.errors import InterruptedRunError, NonFiniteLossError
from contrex.models import Classifier, model_logits
from contrex.records import write_json
from contrex.training.checkpoint import Checkpoints
from contrex.training.resuming import resuming_command
from contrex.training.state import Place

ADVICE = "lower `optimizer.lr` or set `optimizer.clip_norm`"
"""Against a run that diverges."""


ORPHANED = int(getattr(signal, "SIGHUP", signal.SIGTERM))
"""What torchrun that is gone counts as."""


class Requests:
    """The requests to stop that a run has had: signals, and the end of the process that started it."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._launcher = os.getppid()

    def number(self) -> int:
        """The number of the signal that asks the run to stop, 0 where none does.

        torchrun cannot end its processes when it is killed itself: they would go on unseen, beside those of the next
        start. So they stop when they have another parent.
        """
        is_orphan = ranks.world_size() > 1 and os.getppid() != self._launcher
        return max(self.received, default=ORPHANED if is_orphan else 0)


@contextmanager
def signals() -> Iterator[Requests]:
    """Collect the first SIGINT or SIGTERM instead of dying from it; a second one acts as usual.

    In a run of several processes none acts as usual: torchrun passes on what its processes have received already, and
    kills them itself when they take too long.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        requests.received.append(number)
        if ranks.world_size() == 1:
            restore()

    try:
        for number in usual:
            signal.signal(number, note)
        yield requests
    finally:
        restore()


def interrupted(number: int, folder: Path, place: Place) -> InterruptedRunError:
    """The error for a request to stop, which says how to continue."""
    name = "the end of torchrun" if number == ORPHANED else signal.Signals(number).name
    return InterruptedRunError(f"stopped by {name} after step {place.step}", number, resuming_command(folder))


class Watched(nn.Module):
    """The network during validation, which raises where a logit is NaN: there would be no most probable class."""

    def __init__(self, network: nn.Module, place: Place) -> None:
        super().__init__()
        self.network = network
        self._place = place

    def forward(self, images: Tensor) -> Tensor:
        """The logits.

        Raises:
            NonFiniteLossError: one of them is NaN.
        """
        logits = model_logits(self.network, images)
        if logits.isnan().any():
            raise NonFiniteLossError(
                f"the validation logits became NaN after step {self._place.step}, at the end of epoch "
                f"{self._place.epoch}: the weights have diverged; {ADVICE}."
            )
        return logits


def report_nonfinite(
    checkpoints: Checkpoints,
    loss: float,
    classifier: Classifier,
    parts: Sequence[Batch],
    place: Place,
    device: torch.device,
) -> NonFiniteLossError:
    """Write down which images a NaN or infinite loss or gradient came from, and return the error.

    `parts` are what this process had of the batch; all processes must call it.
    """
    # Two sync points below: exchanges are matched by their order, so all processes make both.
    what = "gradient" if math.isfinite(loss) else "loss"
    seen = [one for part in parts for one in (part, part.unlabelled) if one is not None]
    own = [path for part in seen for path in _offending(classifier, part, device)]
    paths = [path for found in ranks.gathered([p for part in seen for p in part.paths]) for path in found]
    offending = [path for found in ranks.gathered(own) for path in found]
    listed = checkpoints.folder.parent / "nonfinite.json"
    if ranks.rank() == 0:
        write_json(listed, {"step": place.step, "epoch": place.epoch, "paths": offending or paths})
    if len(offending) == len(paths):
        cause = f"every image of the batch gives non-finite logits, so the weights have diverged: {ADVICE}"
    elif offending:
        cause = f"these images alone give non-finite logits: {', '.join(offending[:5])}"
    else:
        cause = f"no single image does it (the first of the batch is {paths[0]}): {ADVICE}"
    last = "The last checkpoint is from before it." if checkpoints.exists() else "There is no checkpoint yet."
    return NonFiniteLossError(
        f"the {what} became NaN or infinite at step {place.step} of epoch {place.epoch}; {cause}. "
        f"All paths: {listed}. {last}"
    )


def _offending(classifier: Classifier, batch: Batch, device: torch.device) -> list[str]:
    # Not put back: the run ends here. In eval mode no image's logits depend on the others.
    classifier.network.eval()
    with torch.no_grad():
        logits = model_logits(classifier.network, classifier.normalise(batch.to(device).images))
    return [path for path, finite in zip(batch.paths, logits.isfinite().all(1).tolist(), strict=True) if not finite]
