"""Normal equations put together from blocks, solved directly when small and by conjugate gradients when large."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

LARGEST_DENSE = 3000
CG_TOLERANCE = 1e-3
CG_STEPS = 500
HOLD = 1e3


class System:
    """H x = g with H the sum of symmetric blocks over some of the numbers each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.blocks: list[tuple[Tensor, Tensor]] = []
        self.side = torch.zeros(size, dtype=torch.float64)
        self.diagonal = torch.zeros(size, dtype=torch.float64)
        self.held: Tensor | None = None

    def add(self, columns: Tensor, matrix: Tensor, side: Tensor) -> None:
        """A block [k, k] and right side [k] over the numbers ``columns`` [k]."""
        self.blocks.append((columns, matrix))
        self.side.index_add_(0, columns, side)
        self.diagonal.index_add_(0, columns, matrix.diagonal())

    def hold(self, columns: Tensor) -> None:
        """Keep the sum of these numbers at zero, by a stiff spring."""
        self.held = columns

    def push(self, columns: Tensor, force: float) -> None:
        """Pull each of these numbers upwards."""
        self.side[columns] += force

    def solve(self, damping: float) -> Tensor:
        """[size] the step; what nothing depends on stays 0. ``damping`` is relative to the diagonal."""
        used = self.diagonal > 1e-15 * self.diagonal.max()
        ridge = torch.where(used, damping * self.diagonal, 1.0)
        spring = 0.0 if self.held is None else HOLD * float(self.diagonal[self.held].mean()) / len(self.held)
        step = self._direct(ridge, spring) if self.size <= LARGEST_DENSE else self._iterative(ridge, spring)
        return torch.where(used, step, 0.0)

    def _direct(self, ridge: Tensor, spring: float) -> Tensor:
        matrix = torch.diag(ridge)
        for columns, block in self.blocks:
            matrix[columns[:, None], columns] += block
        if self.held is not None:
            matrix[self.held[:, None], self.held] += spring
        factor = cho_factor(matrix.numpy(), lower=True, overwrite_a=True, check_finite=False)
        return torch.from_numpy(cho_solve(factor, self.side.numpy(), check_finite=False))

    def _iterative(self, ridge: Tensor, spring: float) -> Tensor:
        def product(vector: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(np.ascontiguousarray(vector))
            y = ridge * x
            for columns, block in self.blocks:
                y.index_add_(0, columns, block @ x[columns])
            if self.held is not None:
                y[self.held] += spring * x[self.held].sum()
            return y.numpy()

        scale = (self.diagonal + ridge).numpy()
        shape = (self.size, self.size)
        operator = LinearOperator(shape, matvec=product, dtype=np.float64)
        jacobi = LinearOperator(shape, matvec=lambda v: v / scale, dtype=np.float64)
        step, _ = cg(operator, self.side.numpy(), rtol=CG_TOLERANCE, maxiter=CG_STEPS, M=jacobi)
        return torch.from_numpy(step)
