"""Linear classifier on cached features."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class LinearProbe:
    """Multinomial logistic regression on standardized features, fitted by L-BFGS.

    Minimizes the mean cross-entropy plus ``weight_decay / 2`` times the squared norm of the
    weights (not of the bias). The problem is convex and the fit starts from zero, so that the
    result does not depend on a seed.

    Args:
        weight_decay: Strength of the regularization. Defaults to 1e-3.
        max_iterations: Maximum number of L-BFGS iterations. Defaults to 200.
    """

    def __init__(self, weight_decay: float = 1e-3, max_iterations: int = 200) -> None:
        self.weight_decay = weight_decay
        self.max_iterations = max_iterations

    def fit(
        self,
        features: Tensor,
        labels: Tensor,
        progress: Callable[[float], None] | None = None,
    ) -> LinearProbe:
        """Fit the classifier.

        Args:
            features: ``(N, D)``.
            labels: ``(N,)`` long.
            progress: Called before each evaluation of the loss with the fraction of the maximum
                number of evaluations, 0 to 1. Defaults to None.

        Returns:
            The probe itself.
        """
        features = features.double()
        self.mean = features.mean(0)
        self.scale = features.std(0).clamp(min=1e-8)
        x = (features - self.mean) / self.scale
        classes = int(labels.max()) + 1
        self.weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
        self.bias = x.new_zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=self.max_iterations,
            tolerance_grad=1e-6,
            tolerance_change=1e-9,
            line_search_fn='strong_wolfe',
        )

        # The default maximum of torch's L-BFGS, `max_eval`.
        max_evaluations, evaluations = self.max_iterations * 5 // 4, 0

        def closure() -> Tensor:
            nonlocal evaluations
            evaluations += 1
            if progress is not None:
                progress(min(1.0, evaluations / max_evaluations))
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(x, self.weight, self.bias), labels)
            loss = loss + self.weight_decay / 2 * self.weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        self.weight, self.bias = self.weight.detach(), self.bias.detach()
        return self

    def scores(self, features: Tensor) -> Tensor:
        """Logits ``(M, C)`` of features ``(M, D)``."""
        x = (features.double() - self.mean) / self.scale
        return F.linear(x, self.weight, self.bias)

    def predict(self, features: Tensor) -> Tensor:
        """Classes ``(M,)`` long of features ``(M, D)``."""
        return self.scores(features).argmax(1)
