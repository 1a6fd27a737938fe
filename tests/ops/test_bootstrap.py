"""Statistics of values per image: resampled means and the sign test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from contrex.ops.bootstrap import binomial_p_value, resampled_means, sign_test


def test_a_resample_draws_the_same_images_for_every_row() -> None:
    row = np.arange(50.0)
    means = resampled_means(np.stack([row, row + 7]), 100, np.random.default_rng(0))
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 7)
    assert np.unique(means[:, 0]).size > 50


def test_sign_test_of_five_images_by_hand() -> None:
    # 4 of 5 above: 2 (C(5,0) + C(5,1)) / 32
    found = sign_test(np.array([3.0, 0.1, -2.0, 1.0, 5.0, 0.0, 0.0, np.nan]))
    assert (found.num_above, found.num_below, found.num_ties) == (4, 1, 2)
    assert found.p_value == pytest.approx(12 / 32)


def test_sign_test_counts_images_and_not_how_much_they_differ() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    assert sign_test(differences) == sign_test(differences**3)
    assert sign_test(differences).p_value == sign_test(-differences).p_value


@pytest.mark.parametrize("total", [1, 2, 7, 30, 1001])
def test_p_values_are_scipy_s(total: int) -> None:
    for fewer in {0, 1, total // 3, total // 2}:
        if 2 * fewer <= total:
            assert binomial_p_value(fewer, total) == pytest.approx(binomtest(fewer, total).pvalue, rel=1e-9)


def test_many_images_neither_overflow_nor_lose_a_tiny_p() -> None:
    assert binomial_p_value(24_000, 50_000) == pytest.approx(binomtest(24_000, 50_000).pvalue, rel=1e-6)
    assert binomial_p_value(0, 900) == pytest.approx(2.0**-899)
    assert binomial_p_value(0, 0) == 1


def test_ties_alone_favour_neither_side() -> None:
    assert sign_test(np.zeros(9)).p_value == 1
