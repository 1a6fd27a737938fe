"""Which images a limit leaves: as many of each class as of any other."""

from __future__ import annotations

from collections.abc import Sequence

from contrex import settings
from contrex.data.sample import ImageSet


def chosen(images: ImageSet, options: settings.Evaluation) -> Sequence[int]:
    """The indices of the images that are evaluated, in the order of the set."""
    if options.limit is None or options.limit >= len(images):
        return range(len(images))
    if options.limit_by == "order":
        return range(options.limit)
    return spread([images.label(index) for index in range(len(images))], options.limit)


def chosen_in_words(images: ImageSet, options: settings.Evaluation) -> dict[str, str]:
    """How the images were chosen, for a record: nothing where a limit leaves none out."""
    if options.limit is None or options.limit >= len(images):
        return {}
    how = "the first ones" if options.limit_by == "order" else "spread evenly over the classes"
    return {"chosen": f"{options.limit} of {len(images)} images, {how}"}


def spread(labels: Sequence[int], num: int) -> list[int]:
    """Positions of `num` of the labels, in their order: of each class as many as of any other, give or take one or
    until it has no more, and evenly spaced among its own.

    Of images that are sorted by class the first ones are of few classes, whose numbers may be far from those of all.

    >>> spread([0, 0, 0, 0, 1, 1, 2, 2, 2, 2], 5), spread([0, 0, 1, 1, 2, 2, 3, 3], 2)
    ([0, 2, 4, 5, 6], [0, 4])
    """
    members: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for position, label in enumerate(labels):
        members[label].append(position)
    counts = dict.fromkeys(members, 0)
    while left := num - sum(counts.values()):
        able = [label for label in members if counts[label] < len(members[label])]
        if left < len(able):  # one more for some of the classes, evenly spaced among them
            able = [able[place * len(able) // left] for place in range(left)]
        share = max(left // len(able), 1)
        counts |= {label: min(counts[label] + share, len(members[label])) for label in able}
    return sorted(
        own[place * len(own) // counts[label]] for label, own in members.items() for place in range(counts[label])
    )
