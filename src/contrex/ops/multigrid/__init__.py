"""Laplace's equation in the holes of images, by conjugate gradients with a multigrid cycle as preconditioner.

Each missing pixel is to be the weighted mean of its neighbours: `A u = 0` in the hole, the known pixels given, with
`A u = sum_j w_ij (u_i - u_j)`, w = 2 for direct and 1 for diagonal neighbours inside the image.

*Cycle* (Brandt 1977): one Gauss-Seidel sweep, the residual summed over cells of 2x2 pixels, the same on the grid of
cells, its correction interpolated bilinearly, a sweep in the opposite order. The equations of cells are those of
pixels; a cell is missing where all its pixels are, so a coarse grid never moves what is known. The cycle is not
quite symmetric, so a step is made conjugate to the one before it, not by the usual formula, which assumes symmetry.

| file | |
|---|---|
| `fill.py` | `HarmonicFill`, the steps of conjugate gradients |
| `cycle.py` | the cycle, and the first guess from the coarsest grid up |
| `level.py` | the equations of one grid: sweeps, residuals, interpolation |
| `layout.py` | how pixels lie in memory, which is what the speed comes from |
| `plain.py` | the same equations by conjugate gradients alone: slow, and what the others are tested with |
"""

from contrex.ops.multigrid.fill import HarmonicFill
from contrex.ops.multigrid.plain import harmonic_fill

__all__ = ["HarmonicFill", "harmonic_fill"]
