"""Random numbers that are pure functions of their purpose and place, so that no order of events changes them."""

from __future__ import annotations

import zlib

import numpy as np


def stream(purpose: str, *place: int) -> np.random.Generator:
    """A random generator that depends on nothing but its purpose and its place, e.g. (seed, epoch, index).

    The number of coordinates counts too: numpy's seeding alone takes (1, 0) and (1,) for the same place.
    """
    # `crc32`, as Python's own `hash` of a text differs from process to process.
    return np.random.Generator(np.random.PCG64((zlib.crc32(purpose.encode()), len(place), *place)))
