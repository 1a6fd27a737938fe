"""Writes the table of all explainers on ten architectures into the page: right, or refused by name.

    python tests/explain/by_architecture.py

Right is a finite map of the right shape beside the model's own logits, and a contrast that is the difference of the
classes' maps. `test_contract.py` puts the same cells through the whole contract.
"""

from __future__ import annotations

import itertools
import re
import sys
import warnings
from functools import partial
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "explainers" / "architectures.md"
HEADING = "## Every explainer on ten architectures"
CELLS = ("right", "refused")


def cell(method: str, architecture: str) -> str:
    """Whether an explainer is right for an architecture, or refuses it."""
    from contrex.errors import LayerError
    from contrex.explain import EXPLAINERS, Occlusion
    from contrex.explain.contract import CHECKS
    from explain.test_contract import CHEAPER, NEARLY_NOTHING, PER_CHANNEL, real_network

    net, x = real_network(architecture)
    net, x = (net.double(), x.double()) if method in NEARLY_NOTHING else (net.float(), x)
    kind = (
        partial(Occlusion, window=16, stride=16) if method == "occlusion" else CHEAPER.get(method, EXPLAINERS[method])
    )
    checks = ("gives_what_it_promises", *(() if method in PER_CHANNEL else ("answers_classes_as_single_calls",)))
    try:
        for check in checks:
            CHECKS[check](kind, net, x[:1])
    except LayerError:
        return "refused"
    return "right"


def documented() -> dict[tuple[str, str], str]:
    """What the page says of each explainer and architecture."""
    part = DOCS.read_text("utf-8").partition(HEADING)[2].partition("\n## ")[0]
    rows = [
        [one.strip(" `") for one in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", part, re.MULTILINE)
    ]
    head, _, *rows = rows
    return {(row[0], name): one for row in rows for name, one in zip(head[1:], row[1:], strict=True)}


def main() -> None:
    """Measure every cell and write the table."""
    from contrex.explain import EXPLAINERS
    from explain.test_contract import ARCHITECTURES

    warnings.simplefilter("ignore")
    found = {}
    for one, method in itertools.product(ARCHITECTURES, EXPLAINERS):
        found[method, one] = cell(method, one)
        print(one, method, found[method, one], flush=True)
    write(found, list(EXPLAINERS), list(ARCHITECTURES))


def write(found: dict[tuple[str, str], str], methods: list[str], architectures: list[str]) -> None:
    """Write the table of these cells into the page."""
    lines = [f"| | {' | '.join(architectures)} |", f"|---|{'---|' * len(architectures)}"]
    lines += [f"| `{m}` | {' | '.join(found[m, one] for one in architectures)} |" for m in methods]
    counts = {kind: sum(one == kind for one in found.values()) for kind in CELLS}
    page = DOCS.read_text("utf-8").partition(HEADING)[0].rstrip()
    count = f"{len(found)} cells: **{counts['right']} right, {counts['refused']} refused, 0 wrong**."
    DOCS.write_text("\n".join([page, "", HEADING, "", ABOUT.format(count=count), *lines, ""]), "utf-8")


ABOUT = """\
With random weights, at the sizes of `tests/explain/test_contract.py`; written by `tests/explain/by_architecture.py`.
{count} Right is a finite map of the right shape beside the network's own
logits, whose contrasts are the differences of the classes' maps; the slow tests put every such cell through the
contract. What is refused says why: no global pooling and one linear layer (`cam`), no ReLU (`guided_backprop`),
no rule for a layer norm (`excitation_backprop`), no attention among all tokens, one resolution only (`refine_cam`).
"""


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
