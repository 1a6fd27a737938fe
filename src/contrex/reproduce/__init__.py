"""Running the papers' tables again: every row with every seed, measured as in the paper, beside the paper's numbers.

    order.py     what is to be done: recipes, seeds, ways of measuring
    plan.py      what that would cost, from a trial of a few steps
    run.py       doing it, or going on with it, and writing the page

FOLDER/
    ROW-seed0/                  a run folder per row and seed (`contrex.training.loop`) with its records
    recipes/ROW.json            the recipes, written by a plan
    cgc-table5.html, .csv       the paper's numbers and ours; names of several tables are joined by "+"
    cgc-table5-runs.html        the runs side by side, with pictures
"""

import warnings

from contrex.reproduce.order import Order, Work, ordered
from contrex.reproduce.plan import ReproductionPlan, planned
from contrex.reproduce.run import Reproduction, reproduce

__all__ = ["Order", "Reproduction", "ReproductionPlan", "Work", "ordered", "planned", "reproduce"]


def __getattr__(name: str) -> type[ReproductionPlan]:
    """Give `ReproductionPlan` under its old name, with a warning."""
    if name != "Plan":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("contrex.reproduce.Plan is now ReproductionPlan.", DeprecationWarning, stacklevel=2)
    return ReproductionPlan
