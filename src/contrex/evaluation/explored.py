"""What a report needs to ask a kept picture anything: the maps of a few classes, as the explorer's page holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from contrex.data.views.evaluation import Views
from contrex.errors import ArgumentError
from contrex.explain.explorer.class_maps import class_maps
from contrex.explain.explorer.content import plain_answer, plain_task
from contrex.ops import scores
from contrex.ops.explorer_page import VERSION
from contrex.records import to_plain

if TYPE_CHECKING:
    from contrex.evaluation.bench import Bench

NUMBERS = 2000
"""Numbers of all maps of a picture: two bytes each, 2.7 in the page. Of a map of 14 x 21 cells these are six."""

COSTLY = 4
"""How many classes have a map where each costs a backward pass."""


def explored(bench: Bench, views: Views, logits: Tensor, first: Sequence[int]) -> str:
    """The maps of classes of one whole image, `first` and then the most probable of its `logits` [K], as JSON.

    Whatever contrast is measured, these are maps of classes, of which the page makes the contrasts. Empty where the
    image cannot be asked.
    """
    task, whole = bench.options.task, views.whole
    if whole is None:
        return ""
    order = scores.class_logits(logits[None], scores.task_of(logits[None], task))[0].argsort(descending=True).tolist()
    wanted = list(dict.fromkeys([*first, *order]))
    image = bench.normalise(whole.pixels[None])
    try:
        maps = class_maps(bench.explainer, image, wanted, task=task, most=len(wanted), cells=NUMBERS, costly=COSTLY)
    except ArgumentError:  # its label has a map, and another class has none: what was measured stays true
        return ""
    answer = {"version": VERSION, **plain_task(maps), "answer": plain_answer([maps])}
    return json.dumps(to_plain(answer), separators=(",", ":"))
