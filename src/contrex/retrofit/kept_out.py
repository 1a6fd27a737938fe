"""What the photos kept out say, which nobody labelled: the original network's predictions stand in for labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from contrex import settings
from contrex.data.sample import ImageSet
from contrex.data.views.evaluation import EvaluationViews
from contrex.data.views.squares import view_sizes
from contrex.evaluation import Bench, Group, Protocol
from contrex.metrics import PerSampleMetric
from contrex.models import Classifier, class_names, eval_mode, model_logits

CHUNK = 64
"""Photos that go through the network at once."""


class KeptOut(ImageSet):
    """The photos kept out, each with the class that a network predicts as its label, and its probability; `sure` is the
    probability from which on it is sure."""

    def __init__(self, images: ImageSet, probabilities: NDArray[np.float64], *, sure: float) -> None:
        self.name, self.skipped, self.details = images.name, images.skipped, images.details
        self.classes = class_names(probabilities.shape[1])
        self._images, self._predictions, self.sure = images, probabilities.argmax(1), sure
        self.is_sure = probabilities.max(1) >= sure

    @staticmethod
    def by(
        classifier: Classifier, images: ImageSet, data: settings.Data, *, sure: float, device: torch.device
    ) -> KeptOut:
        """Ask `classifier`, which is on `device`, for the classes of `images`."""
        views = EvaluationViews(images, view_sizes(data), whole_side=None, needs_whole=False, gallery=())
        found = []
        with eval_mode(classifier.network), torch.inference_mode():
            for start in range(0, len(images), CHUNK):
                squares = [views[index].square for index in range(start, min(start + CHUNK, len(images)))]
                asked = classifier.normalise(torch.stack(squares).to(device))
                found.append(model_logits(classifier.network, asked).double().softmax(1).cpu())
        return KeptOut(images, torch.cat(found).numpy(), sure=sure)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        """Read the RGB pixels of a photo."""
        return self._images.image(index)

    def label(self, index: int) -> int:
        """The class that the network predicts."""
        return int(self._predictions[index])

    def path(self, index: int) -> str:
        """The path of a photo."""
        return self._images.path(index)


class Agreed(PerSampleMetric):
    """How often a prediction is the original's, in %."""

    unit = "%"
    higher_is_better = True

    def __init__(self, name: str, title: str, skip_reason: str = "") -> None:
        self.name, self.title, self.skip_reason = name, title, skip_reason
        super().__init__()

    def update(self, agreed: torch.Tensor) -> None:
        """Count predictions [N], 1 or 0, NaN where they do not count."""
        self.append(100 * agreed)


class Agreement(Protocol):
    """Agreement with the original network: on all photos, and where it was sure."""

    name = "agreement"
    title = "Agreement with the original"
    judges_classifier_only = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        assert isinstance(bench.subject.images, KeptOut)
        self.images = bench.subject.images
        unsure = f"the original's probability is below {self.images.sure:g}"
        self.all = Agreed("agreement", "Agreement with the original")
        self.sure_ones = Agreed("sure_agreement", "Agreement where it was sure", unsure)
        self.metrics = [self.all, self.sure_ones]

    def meaning(self) -> str:
        return "How often the most probable class is that of the network before it was retrofitted."

    def judge(self, group: Group) -> Sequence[int]:
        agreed = (group.logits.argmax(1) == group.labels).double().cpu()
        is_sure = torch.from_numpy(self.images.is_sure[list(group.indices)])
        self.all.update(agreed)
        self.sure_ones.update(agreed.where(is_sure, torch.nan))
        return group.indices

    def details(self) -> dict[str, Any]:
        return {"sure": self.images.sure}
