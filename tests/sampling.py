"""Which of many combinations or cases the default suite runs: a spread sample. `-m slow` runs the others."""

from collections import Counter
from itertools import product

import pytest


def crossed(*axes, one_in, start=0):
    """All combinations of the axes as parameters, of which one in `one_in` is in the default suite.

    Each value of an axis meets every `one_in`-th value of the others, so none of an axis is left out that has so many.
    Tests of one long axis have different values of it with different `start`.
    """
    places = product(*(range(len(axis)) for axis in axes))
    return [
        pytest.param(*values, marks=() if sum(place) % one_in == start else pytest.mark.slow)
        for place, values in zip(places, product(*axes), strict=True)
    ]


def sampled(*, one_in):
    """The mark of a test with many cases alike, of which one in `one_in` is in the default suite: the first is, then
    one after as many others. Those that are slow anyway do not count."""
    return pytest.mark.sampled(one_in=one_in)


def mark_the_others_slow(items):
    places = Counter()
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark is not None and item.get_closest_marker("slow") is None:
            test = item.nodeid.partition("[")[0]
            if places[test] % mark.kwargs["one_in"]:
                item.add_marker(pytest.mark.slow)
            places[test] += 1
