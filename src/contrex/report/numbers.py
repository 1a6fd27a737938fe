"""Numbers as text, with as many digits as their uncertainty allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; `low` and `high` are NaN when there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def decimals(uncertainty: float) -> int | None:
    """How many decimals are worth printing beside an uncertainty, by the rule of the Particle Data Group.

    They show two significant digits of the uncertainty if its first three digits are at most 354, otherwise one (0.96
    counts as 1.0). Negative numbers mean tens, hundreds and so on. None if the uncertainty is not a positive number.

    >>> [decimals(u) for u in (0.123, 0.84, 3.1, 96.0, 420.0)]
    [2, 1, 1, -1, -2]
    """
    if not (math.isfinite(uncertainty) and uncertainty > 0):
        return None
    exponent = math.floor(math.log10(uncertainty))
    leading = round(uncertainty / 10.0**exponent * 100)
    return 1 - exponent if leading <= 354 else -exponent


def one_digit(deviation: float) -> int | None:
    """How many decimals show one digit of a standard deviation; a few seeds do not say more.

    >>> [one_digit(deviation) for deviation in (0.024, 0.28, 36.0, 0.0)]
    [2, 1, -1, None]
    """
    return -math.floor(math.log10(deviation)) if math.isfinite(deviation) and deviation > 0 else None


def number(value: float, places: int | None = None, *, signed: bool = False) -> str:
    """The text of `value` with `places` decimals, or with three significant digits.

    More than six decimals are written with a power of ten.

    >>> number(71.749, 1), number(0.5, 1, signed=True), number(12345, -2), number(0.004567)
    ('71.7', '+0.5', '12300', '0.00457')
    >>> number(0.00000712, 7), number(0.0012, 7), number(0.0, 7)
    ('7.1e-6', '1.2000e-3', '0')
    """
    if not math.isfinite(value):
        return NOTHING
    places = significant_places(value) if places is None else places
    rounded = abs(round(value, places))
    text = _power_of_ten(rounded, places) if places > 6 else f"{rounded:.{max(places, 0)}f}"
    negative = value < 0 and float(text) != 0
    return (MINUS if negative else "+" if signed and float(text) != 0 else "") + text


def _power_of_ten(value: float, places: int) -> str:
    """A positive number with `places` decimals, written as 7.1e-6."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(value) + 1e-12)
    return f"{value / 10.0**exponent:.{max(0, places + exponent)}f}e{exponent}"


def significant_places(value: float, digits: int = 3) -> int:
    """How many decimals show `digits` significant digits of `value`, at least 0.

    >>> significant_places(71.7), significant_places(0.004567), significant_places(0)
    (1, 5, 0)
    """
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def value_text(estimate: Estimate, places: int | None = None) -> str:
    """The value of an estimate as text with `places` decimals, or as many as its interval allows.

    >>> value_text(Estimate(71.749, 70.9, 72.6))
    '71.7'
    """
    return number(estimate.value, decimals(estimate.half_width) if places is None else places)


def interval_text(estimate: Estimate, places: int | None = None, *, signed: bool = False) -> str:
    """The interval of an estimate as text with `places` decimals, or as many as its length allows; empty when there is
    none.

    >>> interval_text(Estimate(71.749, 70.93, 72.61)), interval_text(Estimate(1.0))
    ('[70.9, 72.6]', '')
    """
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    places = decimals(estimate.half_width) if places is None else places
    return f"[{number(estimate.low, places, signed=signed)}, {number(estimate.high, places, signed=signed)}]"


def shared_places(estimates: Sequence[tuple[Estimate, int | None]]) -> int | None:
    """One number of decimals for a column of (estimate, the decimals that it allows): the fewest that any allows, but
    at most one less than the most. Three significant digits where no estimate says how many; None for no estimates.

    >>> shared_places([(Estimate(97.61, 96.6, 98.5), 1), (Estimate(100.0), None), (Estimate(99.9, 99.7, 100.0), 2)])
    1
    """
    allowed = [places for _, places in estimates if places is not None]
    finite = [estimate.value for estimate, _ in estimates if math.isfinite(estimate.value)]
    if not allowed:
        return max(map(significant_places, finite), default=None)
    # an interval that is almost a point allows any number of decimals: six digits are enough
    ends = [abs(end) for one, _ in estimates for end in (one.value, one.low, one.high) if math.isfinite(end)]
    return min(max(min(allowed), max(allowed) - 1), significant_places(max(ends, default=0.0), 6))


def percent(share: float) -> str:
    """A probability in per cent; "100 %" only for one, and "0 %" only for zero.

    >>> [percent(share).split()[0] for share in (0.973, 0.9996, 0.0004, 1.0)]
    ['97', '>99', '<1', '100']
    """
    if not math.isfinite(share):
        return NOTHING
    if 0.995 <= share < 1:
        return ">99\N{NO-BREAK SPACE}%"
    if 0 < share < 0.005:
        return "<1\N{NO-BREAK SPACE}%"
    return f"{share * 100:.0f}\N{NO-BREAK SPACE}%"


def p_text(p_value: float) -> str:
    """A p value as text, with the digits that matter.

    >>> [p_text(p) for p in (0.03123, 0.4567, 0.00003, 0.99999)]
    ['p = 0.031', 'p = 0.46', 'p < 0.001', 'p = 1']
    """
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.{3 if p_value < 0.0995 else 2}f}".replace("1.00", "1")


def count(value: int) -> str:
    """A whole number with commas between the thousands.

    >>> count(3900), count(12)
    ('3,900', '12')
    """
    return f"{value:,}"
