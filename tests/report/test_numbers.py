"""No more digits than the interval warrants."""

from __future__ import annotations

import math

import pytest

from contrex.report.numbers import MINUS, NOTHING, Estimate, decimals, interval_text, number, percent, value_text


@pytest.mark.parametrize(
    ("uncertainty", "places"),
    [(0.00354, 4), (0.00356, 3), (0.0949, 2), (0.096, 2), (1.0, 1), (3.54, 1), (3.6, 0), (35.0, 0), (36.0, -1)],
)
def test_decimals_follow_the_particle_data_group(uncertainty: float, places: int) -> None:
    assert decimals(uncertainty) == places


@pytest.mark.parametrize("uncertainty", [0.0, math.nan, math.inf, -1.0])
def test_decimals_are_unknown_without_an_uncertainty(uncertainty: float) -> None:
    assert decimals(uncertainty) is None


def test_value_and_interval_share_their_decimals() -> None:
    estimate = Estimate(71.7489, 70.9123, 72.6234)
    assert (value_text(estimate), interval_text(estimate)) == ("71.7", "[70.9, 72.6]")


def test_a_wide_interval_rounds_to_tens() -> None:
    assert value_text(Estimate(12346.0, 12306.0, 12386.0)) == "12350"
    assert number(12345.0, -2) == "12300"


def test_value_without_interval_has_three_significant_digits() -> None:
    assert [value_text(Estimate(v)) for v in (71.7489, 0.0045678, 1234.5)] == ["71.7", "0.00457", "1234"]
    assert interval_text(Estimate(1.0)) == ""


def test_signs() -> None:
    assert number(-0.04, 1, signed=True) == "0.0"  # never "-0.0"
    assert number(-1.25, 1) == f"{MINUS}1.2"
    assert number(1.0, 1, signed=True) == "+1.0"
    assert number(math.nan) == NOTHING


def test_percent_never_claims_certainty() -> None:
    assert percent(0.99999).startswith(">99")
    assert percent(0.001).startswith("<1")
    assert [percent(p).split("\N{NO-BREAK SPACE}")[0] for p in (1.0, 0.0, 0.5)] == ["100", "0", "50"]


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (7.1e-7, 8, "7.1e-7"),
        (6e-5, 6, "0.000060"),
        (9.97e-8, 9, "1.00e-7"),
        (-2e-9, 10, f"{MINUS}2.0e-9"),
        (4e-9, 7, "0"),
    ],
)
def test_tiny_numbers_are_written_with_a_power_of_ten(value: float, places: int, text: str) -> None:
    assert number(value, places) == text
