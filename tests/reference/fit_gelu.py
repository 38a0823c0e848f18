"""Print the coefficients in numpyvit/kernels/cpu/gelu.py: the best Φ(−a) = exp(−a²/2) · N(a)/D(a) for a ≥ 0.

    python tests/reference/fit_gelu.py

N and D are cubic, D's coefficient of a³ is 1, and N(0)/D(0) = ½ makes the fit exact at 0: six coefficients are free.
Where Φ(−a) is off by δ(a), GELU is off by a·δ(a) and its slope by δ(a), so the fit is to make the largest
max(a, ½)·|δ(a)| as small as possible. That fit is known by this error reaching its maximum at seven places with signs
that alternate (Chebyshev), and the Remez exchange finds it: solve for an error of ±E at seven places, move these to
where the error is largest, repeat.
"""

import math

import numpy as np
from numpy.polynomial.polynomial import polyval
from scipy.special import erfc, erfcx

_A = np.linspace(0, 12, 24_001)[1:]  # a·Φ(−a) is below 1e-31 from there on
_ROUNDS = 10  # after six the places do not move


def error(numerator, denominator, a=_A):
    """δ(a), how much too large the fit's Φ(−a) is."""
    return np.exp(-a * a / 2) * polyval(a, numerator) / polyval(a, denominator) - erfc(a / math.sqrt(2)) / 2


def fit():
    """-> N and D, coefficients of the powers 1 to a³."""
    places = 5 * np.sin((np.arange(7) + 0.5) * math.pi / 14) ** 2
    for _ in range(_ROUNDS):
        numerator, denominator = _with_alternating_error(places)
        places = _largest_errors(numerator, denominator)
    return numerator, denominator


def _with_alternating_error(a):
    """The fit whose weighted error is E, −E, E, … at the seven places a.

    weight · exp(−a²/2) · (N − r D) = ±E D with r = Φ(−a) exp(a²/2) is an eigenproblem in E for the coefficients
    (D₀, N₁, N₂, N₃, D₁, D₂, D₃), N₀ being D₀/2. The smallest |E| belongs to the fit whose D has no zero.
    """
    r = erfcx(a / math.sqrt(2)) / 2
    powers = a[:, None] ** np.arange(1, 4)
    left = _weight(a)[:, None] * np.exp(-a * a / 2)[:, None] * np.column_stack([0.5 - r, powers, -r[:, None] * powers])
    signs = (-1.0) ** np.arange(7)
    right = signs[:, None] * np.column_stack([np.ones(7), np.zeros((7, 3)), powers])
    inverse, vectors = np.linalg.eig(np.linalg.solve(left, right))  # its eigenvalues are 1/E: `right` is singular
    d0, n1, n2, n3, *d = vectors[:, np.abs(inverse).argmax()].real
    return np.array([d0 / 2, n1, n2, n3]) / d[-1], np.array([d0, *d]) / d[-1]


def _largest_errors(numerator, denominator):
    """Where the weighted error is largest between two changes of its sign."""
    weighted = _weight(_A) * error(numerator, denominator)
    pieces = np.split(np.arange(_A.size), np.flatnonzero(np.diff(np.sign(weighted))) + 1)
    return np.array([_A[piece[np.abs(weighted[piece]).argmax()]] for piece in pieces])


def _weight(a):
    return np.maximum(a, 0.5)


if __name__ == "__main__":
    numerator, denominator = ([float(f"{c:.9g}") for c in row] for row in fit())  # float32 holds no more digits
    numerator[0] = denominator[0] / 2
    delta = np.abs(error(numerator, denominator))
    print(f"NUMERATOR = {tuple(numerator)}\nDENOMINATOR = {tuple(denominator)}")
    print(f"largest error of a·Φ(−a): {(_A * delta).max():.2e}, of Φ(−a): {delta.max():.2e}")
