"""How fast a mixing matrix, or a sequence of them, brings peers together."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

DENSE_UP_TO = 500
"""Peers; a dense singular value decomposition of so many takes about 0.1 s."""

SPARSE_TOLERANCE = 1e-6
"""Relative, of the largest singular value where there are more peers."""

CLOSE_ENOUGH = 1e-9
"""Where the rate of a sequence is read off: far enough above rounding."""

Vectors = npt.NDArray[np.float64]


def mixing_rate(matrices: Iterable[sparse.csr_array]) -> float:
    """Return the rate per round of a sequence, 1 - ||W_T...W_1 (I - J/n)||_2^(1/T).

    If all W are doubly stochastic that is W_T...W_1 - J/n. T is the length of the sequence, or the
    round by which a random difference has shrunk below 1e-9: what follows would be rounding.

    Args:
        matrices: W_1, W_2, ...; at least one.

    Returns:
        At most 1, which is reached where the exact mean is; around or below 0 if the sequence does
        not bring peers together.
    """
    taken: list[sparse.csr_array] = []
    probe: Vectors = np.empty(0)
    for matrix in matrices:
        if not taken:
            probe = _centred(np.random.default_rng(0).standard_normal(matrix.shape[0]))
            begun = float(np.linalg.norm(probe))
        taken.append(matrix)
        probe = matrix @ probe
        if np.linalg.norm(probe) <= CLOSE_ENOUGH * begun:
            break
    left = contraction(taken)
    exact = left <= _rounding(len(probe))
    return 1.0 if exact else float(1 - left ** (1 / len(taken)))


def contraction(matrices: Sequence[sparse.csr_array]) -> float:
    """Return ||W_T...W_1 (I - J/n)||_2, by what a difference from the mean shrinks at least.

    Args:
        matrices: W_1..W_T, each [n, n]; never multiplied with each other, so they stay sparse.

    Returns:
        >= 0; up to 500 peers exact to rounding, beyond within 1e-6 of the true value.
    """
    n = matrices[0].shape[0]

    def forward(vectors: Vectors) -> Vectors:
        mixed = _centred(vectors)
        for matrix in matrices:
            mixed = matrix @ mixed
        return mixed

    def backward(vectors: Vectors) -> Vectors:
        for matrix in reversed(matrices):
            vectors = matrix.T @ vectors
        return _centred(vectors)

    if n <= DENSE_UP_TO:
        return float(np.linalg.norm(forward(np.eye(n)), 2))
    operator = LinearOperator((n, n), matvec=forward, rmatvec=backward, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)  # else ARPACK draws one of its own
    if np.linalg.norm(forward(start)) <= _rounding(n) * np.linalg.norm(start):
        return 0.0  # the exact mean; ARPACK refuses an operator that is zero
    largest = svds(operator, k=1, tol=SPARSE_TOLERANCE, v0=start, return_singular_vectors=False)
    return float(largest[0])


def _rounding(num_peers: int) -> float:
    return num_peers * float(np.finfo(np.float64).eps)


def _centred(vectors: Vectors) -> Vectors:
    centred: Vectors = vectors - vectors.mean(axis=0)
    return centred
