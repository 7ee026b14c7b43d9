"""Stage II: distillation of correlations, DIST (Huang et al., 2022)."""

from __future__ import annotations

from torch import Tensor

from ._common import at_least_float32, check_logits

# Added to the product of two norms, as the code of Huang et al. does. So constant rows have
# correlation zero, and a class that nearly no image of a batch has counts less.
_EPS = 1e-8


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    r"""Distillation of correlations (Huang et al., 2022). An addition; the report has none.

    It asks for probabilities that are correlated with the teacher's instead of equal to them.
    With Pearson's correlation :math:`\rho`, of the probabilities of the classes of each image
    (rows, "inter-class") and of the images of each class (columns, "intra-class"):

    .. math:: T^2 \left[ \beta \left(1 - \frac{1}{N} \sum_n \rho(p^s_{n:}, p^t_{n:})\right)
        + \gamma \left(1 - \frac{1}{C} \sum_c \rho(p^s_{:c}, p^t_{:c})\right) \right],
        \quad p = \mathrm{softmax}(z / T)

    As in the code of Huang et al., a correlation is the inner product of the centered values,
    divided by the product of their norms plus 1e-8. So it is zero, with a gradient of zero, where
    values are constant, such as the one value per class of a batch of one image.

    Args:
        student_logits: Logits of the student, ``(N, C)``: the whole batch, over which classes are
            correlated.
        teacher_logits: Logits of the teacher, ``(N, C)``.
        beta: Weight of the rows. Defaults to 1.
        gamma: Weight of the columns. Defaults to 1.
        temperature: Temperature *T*. Defaults to 1.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    check_logits(student_logits, teacher_logits, temperature)
    student, teacher = (
        (at_least_float32(logits) / temperature).softmax(1)
        for logits in (student_logits, teacher_logits)
    )
    inter = 1 - _correlation(student, teacher).mean()
    intra = 1 - _correlation(student.T, teacher.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of two matrices, ``(R, K)`` each; ``(R,)``."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + _EPS)
