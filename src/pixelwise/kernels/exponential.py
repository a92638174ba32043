"""exp of float32 numbers for compiled kernels, as arithmetic that compilers turn into vector instructions.

Numba's package brings no vector mathematics, and a call of the C library's `expf` keeps a loop from being vectorised.
So exp(x) = 2^n exp(r), where n is the whole number nearest to x / log 2 and r = x - n log 2 lies in -0.35..0.35. log 2
is taken off in two parts (Cody and Waite 1980), the first of so few bits that n times it is exact; exp(r) is a
polynomial, fitted for the least largest relative error in this interval (3e-9, before its coefficients are rounded);
2^n is written into the exponent's bits.
"""

from __future__ import annotations

import numpy as np

from pixelwise.kernels.compiled import fused

PER_LOG2 = np.float32(1.4426950408889634)
LOG2_HIGH = np.float32(0.693359375)  # 355 / 512
LOG2_LOW = np.float32(-0.00021219444005469057)
C2, C3, C4, C5, C6 = (
    np.float32(c)
    for c in (0.4999999403953552, 0.1666651964187622, 0.04166839271783829, 0.008368780836462975, 0.0013814467238262296)
)
LOWEST = np.float32(-104.0)  # so that n is a small whole number; the answer is 0 from -87.7 down
HIGHEST = np.float32(89.0)  # the answer is infinite from 88.4 up
ONE = np.float32(1.0)


@fused
def exp(x: np.float32) -> np.float32:
    """exp(x) to within 1.1 units in the last place (1.03 was seen) for x in -87.3..88.3.

    0 below -87.7, where float32's normal numbers end, and at minus infinity; infinite above 88.4; NaN at NaN.
    """
    x = LOWEST if x < LOWEST else x  # in this order NaN stays NaN
    x = HIGHEST if x > HIGHEST else x
    n = np.rint(x * PER_LOG2)
    r = (x - n * LOG2_HIGH) - n * LOG2_LOW
    tail = ((((C6 * r + C5) * r + C4) * r + C3) * r + C2) * r
    exponent = max(np.int32(n) + np.int32(127), np.int32(0))
    return ((tail * r + r) + ONE) * np.int32(exponent << np.int32(23)).view(np.float32)
