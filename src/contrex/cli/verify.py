"""The command `verify`, which computes explanations again and compares them with their records."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from contrex.cli.options import Arguments, parsed
from contrex.errors import ArgumentError, ContrexError, printable
from contrex.importing import uncollected


@dataclass(frozen=True)
class Verify:
    """Compute recorded explanations again, and say whether they still hold: 0 if all do, else 1."""

    records: tyro.conf.Positional[tuple[Path, ...]]
    """Records that contrex explain has written, explanation.json."""
    photo: Path | None = None
    """Where the photo is, of one record; None is where the record says."""
    weights: Path | None = None
    """Where the weights file is; None is where the record says."""
    run: Path | None = None
    """Where the run is; None is where the record says."""
    tolerance: float | None = None
    """How far probabilities, and maps as a share of their largest value, may be off; None is 1e-3."""


def verify(arguments: Arguments) -> int:
    """Compute a recorded explanation again, and say whether it still holds; the exit code is 1 if it does not."""
    options = parsed(Verify, "verify", arguments)
    if not options.records:
        raise ArgumentError("name one record or more: contrex verify explanation.json")
    if options.photo is not None and len(options.records) > 1:
        raise ArgumentError(f"--photo {options.photo} is one photo: give one record.")
    with uncollected():
        from contrex import verifying

    tolerance = verifying.TOLERANCE if options.tolerance is None else options.tolerance
    code = 0
    for path in options.records:
        try:
            verdict = verifying.verify(
                path, photo=options.photo, weights=options.weights, run=options.run, tolerance=tolerance
            )
        except ContrexError as error:
            if len(options.records) == 1:
                raise
            print(f"contrex: {printable(error)}", file=sys.stderr)
            code = max(code, error.exit_code)
            continue
        print(printable(f"{path}: " + "\n".join(verdict.lines())))
        code = max(code, 0 if verdict.holds else 1)
    return code
