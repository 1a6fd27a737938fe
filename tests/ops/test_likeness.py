"""Whether logits are the same but for rounding, beside classes that are switched off."""

import pytest
import torch

from contrex.ops.likeness import differ, rounding_scale

INF = float("inf")


@pytest.mark.parametrize("num", [1, 2, 3, 4, 10, 1000])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 20.0, 1e6])
def test_ordinary_logits_go_by_the_largest(num, scale):
    logits = scale * torch.randn(200, num, generator=torch.Generator().manual_seed(num))
    near_zero = torch.cat([logits, torch.full((200, 1), min(scale * 1e-6, 1e-2))], 1)
    for rows in (logits, logits.relu(), logits.softmax(1), *([near_zero] if scale < 100 else [])):
        torch.testing.assert_close(rounding_scale(rows), rows.abs().amax(1, keepdim=True).expand_as(rows))


@pytest.mark.parametrize("masks", [[-1e9], [-1e4], [-1e4, -1e9, -INF], [-1e9] * 50, [torch.finfo().min], [-INF]])
@pytest.mark.parametrize("own", [[3.0, -12.0], [0.5, 0.0, -1.0, 0.2], [-8.0, -9.0, -7.5]])
def test_what_is_switched_off_hides_nothing(own, masks):
    logits, largest = torch.tensor([*own, *masks]), max(map(abs, own))
    assert rounding_scale(logits)[: len(own)].tolist() == [largest] * len(own)
    assert not differ(logits, logits, 1e-3)
    for place in range(len(own)):
        error = torch.zeros_like(logits)
        error[place] = 2e-3 * largest
        assert differ(logits + error, logits, 1e-3)
        assert not differ(logits + 0.4 * error, logits, 1e-3)
    assert differ(logits.where(logits > -100, -50.0), logits, 1e-3)


def test_what_is_not_finite_must_be_the_same():
    logits = torch.tensor([[1.0, -INF], [1.0, torch.nan], [1.0, 2.0]])
    assert not differ(logits, logits, 1e-3).any()
    assert differ(logits.flip(1), logits, 1e-3).tolist() == [True, True, True]
    assert differ(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]), 1e-3)
    assert not differ(torch.tensor([1.5e-4, 1.0]), torch.tensor([0.0, 1.0]), 1e-4, least=2.0)
