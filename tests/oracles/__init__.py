"""Slow, obvious re-implementations from the papers' equations: loops, float64, tiny models."""
