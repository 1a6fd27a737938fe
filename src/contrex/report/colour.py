"""The colours of runs, and those of heatmaps from `contrex.ops.colour`: safe for colour blindness and grey print."""

from __future__ import annotations

from contrex.ops.colour import DARKEST as DARKEST
from contrex.ops.colour import map_rgb as map_rgb
from contrex.ops.colour import map_stops

SIGNED, POSITIVE = map_stops(-1), map_stops(0)
"""The stops of the colour bars: of signed heatmaps, and of their positive part."""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#a9478a", "#8a6d00", "#3a7fb0", "#5c5c5c")
"""A colour for each run on a light background: Okabe and Ito's, darkened where needed to a contrast of 3:1."""

SERIES_DARK = ("#56b4e9", "#e69f00", "#2fbf94", "#e08fc0", "#f0e442", "#8ec5ea", "#b8b8b8")
"""A colour for each run on a dark background."""

DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2", "9 2")
"""A stroke pattern for each run, so that colour is never the only difference."""
