"""What a retrofit computes once: the trunk of network and teacher, and what both give for images that come again.

The trunk of both is one, as long as nothing of it is trained: each image goes through it once, not twice. For plain
images, which are the same in each epoch, and for views that come again (`Augmentation.period`), its output is kept with
the teacher's logits, as far as the memory allows. Each of these is computed on its own and not with its batch, so that
it is the same, to the last bit, whenever that is: a resumed run computes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from contrex.data.views.batch import Batch
from contrex.errors import LayerError
from contrex.explain import Explainer
from contrex.explain.forward.capture import watched
from contrex.explain.forward.trunk import any_images, going_on, trunk_end, trunk_output
from contrex.methods.averaging import Teacher
from contrex.methods.layer_views import LayerViews, transformed_features
from contrex.methods.step import asks_as_they_are, explained_layer
from contrex.models import model_logits
from contrex.ops.geometry import Crop

T = TypeVar("T")

CHUNK = 16
"""Images that go through the trunk at once on a CPU: MobileNetV2 takes 2.1 s for 64 of them so, and 3.1 s in one go."""

Seen = tuple[int, int]
"""(place of an image in its set, number of its view, or -1 for the plain image): two that are the same are equal. Views
that come again have the numbers from 0, and the incomplete images of as many draws those behind them."""


def seen_in(batch: Batch) -> list[Seen | None]:
    """What the N plain and the n images of the first view of a batch are; None for those that do not come again."""
    num = len(batch)
    places: list[int | None] = [None] * num if batch.indices is None else batch.indices.tolist()
    draws: list[int | None] = [-1] * num
    for view in batch.views[:1]:
        draws += [None] * len(view.crop) if view.draws is None else view.draws.tolist()
        places += places[: len(view.crop)]
    pairs = zip(places, draws, strict=True)
    return [None if place is None or draw is None else (place, draw) for place, draw in pairs]


class Row(NamedTuple):
    """What is kept of one image: the trunk's output `[1,...]`, and the teacher's logits `[1,K]` where it stays as it
    is."""

    features: Tensor
    logits: Tensor | None

    @property
    def num_bytes(self) -> int:
        """The memory that it takes."""
        return sum(value.numel() * value.element_size() for value in self if value is not None)


@dataclass(frozen=True, eq=False)
class Shared:
    """The trunk's output for a batch `[N+n,...]`, the layer that gave it, and the teacher's logits `[N+n,K]`."""

    end: str
    features: Tensor
    logits: Tensor


class SharedTrunk:
    """Runs the trunk of network and teacher once, and keeps in `gib` GiB what it gives for images that come again.

    `num_views` of each image come again (0: none do).

    There is none where the network is in train mode, compiled or shared out among processes, where its first layers are
    trained, or where the explainer looks into all of it, at several layers, or at changed copies of the images; then it
    is asked in vain.
    """

    def __init__(self, network: nn.Module, teacher: Teacher, explainer: Explainer, gib: float) -> None:
        self._network, self._teacher, self._explainer = network, teacher, explainer
        self._bytes = gib * 2**30
        self._rows: dict[Seen, Row] = {}
        self._most: int | None = None
        self.num_views = 0
        self._trained: tuple[bool, ...] = ()
        self.end: str | None = None
        """The last layer of the trunk; None where there is none, or it was not asked for yet."""

    @property
    def image_bytes(self) -> int:
        """The memory that one image takes with its views, once one was kept."""
        return (1 + self.num_views) * next((row.num_bytes for row in self._rows.values()), 0)

    @property
    def num_images_at_most(self) -> int:
        """How many images are kept at most, once one was seen: those in the first places of their set."""
        return self._most or 0

    @property
    def num_bytes(self) -> int:
        """The memory that is taken now."""
        return sum(row.num_bytes for row in self._rows.values())

    def of(self, images: Tensor, seen: Sequence[Seen | None]) -> Shared | None:
        """What is shared of normalised images `[N,C,H,W]`, which are `seen`; None where there is no trunk."""
        end = self.find(images)
        if end is None:
            return None
        rows = self._kept(images, seen)
        features = _filled([None if row is None else row.features for row in rows], images, self._trunk_output)
        known = [None if row is None else row.logits for row in rows]
        left = [number for number, logits in enumerate(known) if logits is None]
        # a method's teacher, network of its own: it goes on from the trunk's output as the network does
        with going_on(self._teacher.network, end, features[left]):
            logits = _filled(known, images, lambda some: model_logits(self._teacher, some))
        return Shared(end, features, logits)

    def with_views(self, shared: Shared, plain: Tensor, crop: Crop) -> Shared:
        """The same of the normalised images `plain` [N,C,H,W], and behind them the n views by `crop` of what the trunk
        gives for the first of them."""
        features = transformed_features(shared.features[: len(crop)], crop)
        with going_on(self._teacher.network, shared.end, features):
            logits = model_logits(self._teacher, plain[: len(crop)])
        return Shared(shared.end, torch.cat([shared.features, features]), torch.cat([shared.logits, logits]))

    def _trunk_output(self, images: Tensor) -> Tensor:
        assert self.end is not None
        # few at once on a CPU, whose caches hold the maps of few; a GPU wants many
        parts = torch.split(images, CHUNK if images.device.type == "cpu" else len(images))
        return torch.cat([trunk_output(self._network, part, self.end) for part in parts])

    def _kept(self, images: Tensor, seen: Sequence[Seen | None]) -> list[Row | None]:
        """What is kept of the images; None in the place of one that does not come again, or that there is no room
        for."""
        new = [number for number, what in enumerate(seen) if what not in self._rows and self._has_room(what)]
        if self._most is None and new:  # the first places, whichever come first: a resumed run keeps the same
            self._most = int(self._bytes // (self._computed(images[new[:1]]).num_bytes * (1 + self.num_views)))
            new = [number for number in new if self._has_room(seen[number])]
        rows = one_by_one(self._computed, images[new])
        self._rows.update((what, row) for number, row in zip(new, rows, strict=True) if (what := seen[number]))
        return [None if what is None else self._rows.get(what) for what in seen]

    def _has_room(self, what: Seen | None) -> bool:
        """Whether an image is one of those that are kept."""
        if what is None or self._bytes == 0:
            return False
        place, view = what
        return view < self.num_views and (self._most is None or place < self._most)

    def _computed(self, image: Tensor) -> Row:
        assert self.end is not None
        if self._teacher.decay is not None:
            return Row(trunk_output(self._network, image, self.end), None)
        seen: list[Tensor] = []
        with watched([self._teacher.network.get_submodule(self.end)], lambda _, output: seen.append(output)):  # type: ignore[arg-type]
            logits = model_logits(self._teacher, image)
        return Row(seen[0], logits)

    def find(self, images: Tensor) -> str | None:
        """The last layer of the trunk of the network as it is trained now; what was kept of another one is
        forgotten."""
        trained = tuple(parameter.requires_grad for parameter in self._network.parameters())
        if not _is_as_written(self._network):
            trained = ()
        if trained == self._trained:
            return self.end
        self._trained, self.end, self._most = trained, None, None
        self._rows.clear()
        if trained and asks_as_they_are(self._explainer):
            some = any_images(images)
            own = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
            self.end = trunk_end(self._network, some, own, explained_layer(self._explainer, some))
        return self.end


class TrunkViews(LayerViews):
    """Views of what the trunk gives, which may be another one when something else is trained."""

    def __init__(self, network: nn.Module, trunk: SharedTrunk, explainer: Explainer) -> None:
        super().__init__(network, "trunk", explainer)
        self._trunk = trunk

    def _found(self, images: Tensor) -> str:
        end = self._trunk.find(images)
        if end is None:
            raise LayerError(
                "`method.view_layer` trunk: no part of the network stays as it is before all that is trained and "
                "explained (in mode train, compiled, or with an explainer of several layers or of changed copies none "
                "does): train less, `method.trained`, or leave it out."
            )
        return end


def one_by_one(work: Callable[[Tensor], T], images: Tensor) -> list[T]:
    """What `work` gives for each of the images `[N,...]` alone, as `[1,...]`.

    A single image leaves the other cores of a CPU idle, so each of them takes one of its own.
    """
    num, alone = torch.get_num_threads(), [images[place : place + 1] for place in range(len(images))]
    # under autocast, which is a thread's own, the others would compute in other numbers
    if images.device.type != "cpu" or min(num, len(images)) < 2 or torch.is_autocast_enabled("cpu"):
        return [work(image) for image in alone]
    try:
        with ThreadPoolExecutor(num, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, alone))
    finally:
        torch.set_num_threads(num)  # what a thread sets is also that of all that begin after it


def _filled(known: Sequence[Tensor | None], images: Tensor, computed: Callable[[Tensor], Tensor]) -> Tensor:
    """The known rows `[1,...]`, and in the places of the others what is computed of their images."""
    left = [number for number, row in enumerate(known) if row is None]
    if len(left) == len(known):
        return computed(images)
    others = iter(torch.split(computed(images[left]), 1) if left else ())
    return torch.cat([next(others) if row is None else row for row in known])


def _is_as_written(network: nn.Module) -> bool:
    """Whether a network is in eval mode, neither compiled nor shared out."""
    is_shared_out = any(hasattr(parameter, "full_tensor") for parameter in network.parameters())
    modules = list(network.modules())
    is_compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in modules)
    return not (is_shared_out or is_compiled or any(module.training for module in modules))
