"""Linear classifier on cached features, and how sure its accuracy is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class LinearProbe:
    """Multinomial logistic regression on standardised features, by L-BFGS.

    Minimises the mean cross-entropy plus ``weight_decay / 2`` times the squared norm of the
    weights (not of the bias). The problem is convex and starts from zero, so that the result
    depends on no seed.

    Args:
        weight_decay: Strength of the regularisation. Defaults to 1e-3.
        max_iterations: Most iterations of L-BFGS. Defaults to 200.
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
            progress: Called with the share of the evaluations that are done, of the most that
                there may be.

        Returns:
            Itself.
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

        # L-BFGS allows so many evaluations for its iterations.
        most, evaluations = self.max_iterations * 5 // 4, 0

        def closure() -> Tensor:
            nonlocal evaluations
            evaluations += 1
            if progress is not None:
                progress(min(1.0, evaluations / most))
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
        """Logits of ``(M, D)`` features, ``(M, C)``."""
        x = (features.double() - self.mean) / self.scale
        return F.linear(x, self.weight, self.bias)

    def predict(self, features: Tensor) -> Tensor:
        """Classes of ``(M, D)`` features, ``(M,)`` long."""
        return self.scores(features).argmax(1)


def bootstrap_interval(
    correct: Tensor, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of an accuracy, or of a gain, over its test images.

    Args:
        correct: Whether, or how often, each test image was classified rightly, ``(M,)``, 0 to 1;
            of a gain the difference between two models, -1 to 1.
        samples: Number of resamples. Defaults to 1000.
        level: Coverage. Defaults to 0.95.
        seed: Seed. Defaults to 0.

    Returns:
        Lower and upper end.
    """
    values = correct.double().cpu().numpy()
    generator = np.random.default_rng(seed)
    # As many resamples at once as take some 100 MB.
    chunk = max(1, 10**7 // len(values))
    sizes = [min(chunk, samples - begin) for begin in range(0, samples, chunk)]
    means = np.concatenate(
        [values[generator.integers(len(values), size=(n, len(values)))].mean(1) for n in sizes]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
