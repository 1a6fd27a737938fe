"""Retrofitting a trained network: better heatmaps from photos without labels, as long as its decisions stay.

FOLDER/
    recipe.json, metrics.jsonl, checkpoints/ ...    the run (`contrex.training.loop`)
    weights.pth         what drops into the place of the old weights: same keys, types and format
    trained.pth         where there is an offset (`contrex.retrofit.offset`): the same without it
    before/ trained/ after/     records on the photos kept out (`contrex.retrofit.kept_out`)
    report.html         side by side, with the photos whose heatmaps changed most
    before-DATA/ trained-DATA/ after-DATA/ report-DATA.html    the same on images with labels, where some were named
"""

from contrex.retrofit.kept_out import Agreement, KeptOut
from contrex.retrofit.offset import Offset, find_offset
from contrex.retrofit.order import Order
from contrex.retrofit.preview import Preview, previewed
from contrex.retrofit.run import Retrofitted, retrofit

__all__ = ["Agreement", "KeptOut", "Offset", "Order", "Preview", "Retrofitted", "find_offset", "previewed", "retrofit"]
