"""Rank correlation and structural similarity of two maps, by loops."""

from __future__ import annotations

import math

import torch


def ranks(values):
    """1 for the smallest; equal values share the mean of their ranks."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def spearman(a, b):
    a, b = ranks(a.flatten().tolist()), ranks(b.flatten().tolist())
    mean = (len(a) + 1) / 2
    covariance = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    return covariance / math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))


def ssim(a, b):
    """Wang et al. (2004), eq. 13: window 11x11, sigma 1.5, mirrored borders, of maps stretched to 0..1 around 0.5."""
    a, b = (0.5 + 0.5 * one.double() / one.abs().max().double() for one in (a, b))
    c1, c2 = 0.01**2, 0.03**2
    line = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    window = torch.tensor([[x * y for x in line] for y in line], dtype=torch.float64)
    window = window / window.sum()
    a, b = (torch.nn.functional.pad(one[None, None], (5, 5, 5, 5), mode="reflect")[0, 0] for one in (a, b))
    values = []
    for r in range(a.shape[0] - 10):
        for c in range(a.shape[1] - 10):
            x, y = a[r : r + 11, c : c + 11], b[r : r + 11, c : c + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            covariance = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(torch.stack(values).mean())
