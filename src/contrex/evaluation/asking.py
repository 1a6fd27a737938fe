"""What the network says about the images of a group and changed copies of them, and why it would say the label."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from contrex.evaluation.bench import Group
from contrex.explain import Explainer, Explanation
from contrex.metrics import Answers
from contrex.ops import heatmap


def answers_about(group: Group, *, target: Tensor | None = None) -> Answers:
    """The network's answers about the squares of `group`, for the predicted class or the `target` [N]. The known logits
    are used again."""
    bench = group.bench
    known: dict[str, Any] = {"logits": group.logits, "batch_size": bench.chunk, "task": bench.options.task}
    return Answers(bench.network, group.squares, target=target, **known)


def label_saliency(group: Group) -> Tensor:
    """The signed heatmaps of the group's labels, resized to the squares: [N,S,S]. Where the label is predicted, the
    heatmap is known."""
    known = group.explanation
    maps, wrong = known.heatmap, (known.target != group.labels).nonzero()[:, 0]
    if len(wrong):
        views, contrast = [group.views[position] for position in wrong.tolist()], group.bench.options.contrast
        own = group.bench.explain(group.squares[wrong], group.labels[wrong], views, contrast=contrast)
        maps = maps.index_copy(0, wrong, own.heatmap)
    return heatmap.resize(maps, group.size)


def explained_again(group: Group, images: Tensor, explainer: Explainer | None = None) -> Explanation:
    """The explanation of changed squares of the group, for the classes that are explained on the plain ones; by another
    explainer where one is given."""
    target, contrast = group.explanation.target, group.bench.options.contrast
    return group.bench.explain(images, target, group.views, contrast=contrast, explainer=explainer)
