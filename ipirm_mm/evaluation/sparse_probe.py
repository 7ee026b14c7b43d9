"""Sparse linear classifier on cached features."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

# How many columns are fitted at first. Each round then at most doubles their number.
_FIRST_COLUMNS = 64


class SparseProbe:
    """Multinomial logistic regression with an L1 penalty, on standardized features.

    Minimizes the mean cross-entropy plus ``l1_weight`` times the sum of the absolute weights (not
    of the bias), from zero, by accelerated proximal gradient descent (FISTA, Beck & Teboulle 2009)
    with backtracking and the restarts of O'Donoghue & Candès (2015). The problem is convex and
    there is no random number, so that the result does not depend on a seed.

    Only dimensions that the optimum may use are fitted. An iteration costs two products of their
    features ``(N, A)`` with ``(A, C)``: 4 N A C multiplications and additions.

    Args:
        l1_weight: Strength of the penalty. Defaults to 0.01.
        tolerance: The fit ends when no entry of the proximal gradient exceeds it. Defaults to
            1e-5.
        max_iterations: Maximum number of iterations; if it is reached, a warning says so.
            Defaults to 2000.
    """

    def __init__(
        self, l1_weight: float = 0.01, tolerance: float = 1e-5, max_iterations: int = 2000
    ) -> None:
        self.l1_weight = l1_weight
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def fit(
        self,
        features: Tensor,
        labels: Tensor,
        progress: Callable[[float], None] | None = None,
    ) -> SparseProbe:
        """Fit the classifier.

        Args:
            features: ``(N, D)``; a constant dimension gets the weight 0.
            labels: ``(N,)`` long, from 0.
            progress: Called before each iteration with the fraction of the maximum number of
                iterations, 0 to 1. Defaults to None.

        Returns:
            The probe itself, with ``weight`` ``(C, D)`` and ``bias`` ``(C,)``, float64, of
            standardized features, and the number of ``iterations``.
        """
        features = features.double()
        self.mean = features.mean(0)
        scale = features.std(0, correction=0)
        # Rounding gives constant features a deviation, relative to their size.
        varies = scale > 1e-12 * features.abs().amax(0)
        self.scale = torch.where(varies, scale, math.inf)
        x = self._standardize(features)
        classes = int(labels.max()) + 1
        target = F.one_hot(labels, classes).double()

        # The last column is the bias. Most weights are zero, so only a working set of columns is
        # fitted; it grows until no column outside violates the optimality conditions.
        weight, logits = x.new_zeros(classes, x.shape[1]), x.new_zeros(len(x), classes)
        working = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
        self.iterations, self.converged = 0, True
        while self.converged:
            gradient = (logits.softmax(1) - target).T @ x / len(x)
            slope = gradient.abs().amax(0)
            slope[-1] = math.inf
            missing = ~working & (slope > self.l1_weight + self.tolerance)
            count = min(int(missing.sum()), max(_FIRST_COLUMNS, int(working.sum())))
            if not count:
                break
            working[slope.where(missing, -math.inf).topk(count).indices] = True
            columns = working.nonzero().squeeze(1)
            found, logits = self._minimize(x[:, columns], target, weight[:, columns], progress)
            weight = torch.zeros_like(weight).index_copy(1, columns, found)
        if not self.converged:
            print_log(
                f'sparse probe: not converged after {self.max_iterations} iterations',
                logger='current',
                level=logging.WARNING,
            )
        self.weight, self.bias = weight[:, :-1], weight[:, -1]
        return self

    def _minimize(
        self,
        x: Tensor,
        target: Tensor,
        weight: Tensor,
        progress: Callable[[float], None] | None,
    ) -> tuple[Tensor, Tensor]:
        """Minimize the objective over some columns, from a start; gives weights and logits."""

        def smooth(logits: Tensor) -> Tensor:
            return (logits.logsumexp(1) - (logits * target).sum(1)).mean()

        # Logits are linear in the weights, so those of an extrapolation need no product.
        logits = x @ weight.T
        last, last_logits = weight, logits
        momentum, curvature, residual = 1.0, 1.0, math.inf
        while residual > self.tolerance and self.iterations < self.max_iterations:
            if progress is not None:
                progress(self.iterations / self.max_iterations)
            self.iterations += 1
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            step = (momentum - 1) / following
            ahead = weight + step * (weight - last)
            ahead_logits = logits + step * (logits - last_logits)
            gradient = (ahead_logits.softmax(1) - target).T @ x / len(x)
            value = smooth(ahead_logits)
            last, last_logits = weight, logits
            curvature *= 0.9
            while True:
                weight = self._shrink(ahead - gradient / curvature, curvature)
                logits = x @ weight.T
                move = weight - ahead
                bound = value + (gradient * move).sum() + curvature / 2 * move.square().sum()
                # The margin is rounding's: near the optimum both sides are equal.
                if smooth(logits) <= bound + 1e-13 * (1 + value.abs()):
                    break
                curvature *= 2
            momentum = following
            if float(-(move * (weight - last)).sum()) > 0:
                momentum = 1.0  # it moves against the descent: restart
            residual = float(curvature * move.abs().max())
        self.converged = residual <= self.tolerance
        return weight, logits

    def predict(self, features: Tensor) -> Tensor:
        """Classes ``(M,)`` long of features ``(M, D)``."""
        weight = torch.cat([self.weight, self.bias[:, None]], 1)
        return (self._standardize(features.double()) @ weight.T).argmax(1)

    def _standardize(self, features: Tensor) -> Tensor:
        """Standardized features and a column of ones, ``(N, D + 1)``."""
        return F.pad((features - self.mean) / self.scale, (0, 1), value=1.0)

    def _shrink(self, weight: Tensor, curvature: float) -> Tensor:
        """Proximal map of the penalty: soft thresholds, except for the bias."""
        shrunk = F.softshrink(weight, self.l1_weight / curvature)
        return torch.cat([shrunk[:, :-1], weight[:, -1:]], 1)
