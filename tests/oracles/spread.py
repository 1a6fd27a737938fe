"""The spread of a heatmap, cell by cell."""

import math


def spread(heatmap):
    """The share of the cells that an even map of the same entropy covers, of a map as nested lists."""
    cells = [max(0.0, value) for row in heatmap for value in row]
    shares = [value / sum(cells) for value in cells]
    entropy = -sum(share * math.log(share) for share in shares if share > 0)
    return math.exp(entropy) / len(cells)


def at_spread(heatmap, share):
    """A map less one number, so that its spread is `share`: the number by small steps down from the largest value."""
    cells = [value for row in heatmap for value in row]
    step = (max(cells) - min(cells)) / 5_000
    number = max(cells) - step
    while spread([[value - number for value in row] for row in heatmap]) < share:
        number -= step
    return [[value - number for value in row] for row in heatmap]
