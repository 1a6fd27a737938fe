"""Which of many combinations the default suite runs: a spread sample. `-m slow` runs the others."""

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
