"""The evaluation: all protocols over a data set, with one explainer or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch

from contrex import ranks, settings
from contrex.data.views.evaluation import EvaluationViews, Views
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError
from contrex.evaluation.chosen import chosen
from contrex.evaluation.groups import GROUP, Groups
from contrex.evaluation.panel import Panel
from contrex.evaluation.protocols import check_names
from contrex.evaluation.subject import Subject
from contrex.records import RunRecord

PUBLISHED_SHORT_SIDE = 448
"""Shorter side of the whole image, in pixels, in the published content-heatmap protocol."""


def evaluate(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> RunRecord:
    """Measure everything that `options.metrics` names, with one explainer, and return the record.

    `progress(done, total)` is called after each group of images. With several processes (`contrex.ranks`) each judges
    its share of the groups, none twice, and all return the record that one process would have written.

    Raises:
        UnknownNameError: a metric or the explainer does not exist.
        DataError: the split is empty, or its classes are not the classifier's.
        ArgumentError: a box or a heatmap cannot be judged (the message names the image), the classifier has too few
            classes for a metric or takes squares only, or the options name several explainers.
    """
    if len(options.of_each_explainer()) > 1:
        raise ArgumentError(
            f"`evaluation.explainers` names {len(options.explainers)} explainers, and this gives one record: call "
            "evaluate_each, which gives one for each."
        )
    return evaluate_each(subject, options, progress=progress)[0]


def evaluate_each(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> list[RunRecord]:
    """Measure with each of `options.explainers`, and return a record for each.

    Each record equals, to the last bit, the one that `evaluate` gives for that explainer alone. Images are read once,
    and what needs no explainer is measured once. `progress` and errors are as in `evaluate`.
    """
    check_names(options)
    indices = chosen(subject.images, options)
    total = len(indices)
    if total == 0:
        raise DataError(f"the split {options.split!r} of {subject.images.name} has no images to evaluate.")
    own, *ways = options.of_each_explainer()
    first = Panel(subject, own)
    others = [Panel(subject, way, beside=first) for way in ways]
    num_shown = min(options.gallery, total) if first.wants_maps else 0  # pictures are shown with their heatmap
    gallery = {indices[place] for place in np.linspace(0, total - 1, num_shown).round().astype(int).tolist()}
    sizes = view_sizes(subject.data)
    whole_sides = {"native": sizes[1], "published": PUBLISHED_SHORT_SIDE, "square": None}
    views = EvaluationViews(
        subject.images,
        sizes,
        whole_side=whole_sides[options.content_heatmap_protocol],
        needs_whole=first.needs_whole,
        gallery=gallery,
    )
    done = 0
    with closing(Groups(views, indices, workers=options.workers)) as groups:
        for group in groups:
            _judge_by_each(first, others, group)
            done = min(done + ranks.world_size() * GROUP, total)
            if progress is not None:
                progress(done, total)
    records = [panel.record(total) for panel in (first, *others)]
    return ranks.from_first(lambda: records)  # a sync point: all return the records of the first process, bit by bit


def _judge_by_each(first: Panel, others: Sequence[Panel], views: Sequence[Views]) -> None:
    """Judge a group of images by several explainers, each with the logits of its own forward passes."""
    group = first.group(views)
    groups = [panel.group(views, beside=group) for panel in others]
    for panel, own in zip(others, groups, strict=True):
        # Passes of different explainers mostly have the same logits, but kernels differ with what autograd records.
        # From the first group on where one bit does, the panel judges the classifier by itself.
        if not torch.equal(own.logits, group.logits):
            panel.part_from(first)
    first.judge(group)
    for panel, own in zip(others, groups, strict=True):
        panel.judge(own)
