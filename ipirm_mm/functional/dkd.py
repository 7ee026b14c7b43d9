"""Stage II: decoupled knowledge distillation (Zhao et al., 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._common import at_least_float32, check_logits


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    r"""Decoupled knowledge distillation (Zhao et al., 2022). An addition; the report has none.

    The divergence of the class probabilities splits into two. TCKD is the divergence of the pair
    :math:`b = (p_y, 1 - p_y)`, where *y* is the class of the image. NCKD is that of the
    probabilities :math:`\hat p` of the other classes among themselves.

    .. math:: \frac{T^2}{N} \sum_n \left[ \alpha \, KL(b^t_n \| b^s_n)
        + \beta \, KL(\hat p^t_n \| \hat p^s_n) \right], \quad p = \mathrm{softmax}(z / T)

    With :math:`\alpha = 1` and :math:`1 - p^t_y` in place of :math:`\beta` it is
    :func:`~ipirm_mm.functional.kl_divergence`.

    The code of Zhao et al. subtracts 1000 from the scaled logit of the class for NCKD, and takes
    the logarithms of rounded probabilities for TCKD. Here the class is left out at any size of its
    logit, and no logarithm is of zero. Where theirs does not round to zero, both are equal. Their
    warm-up, a factor that rises from 0 to 1 over the first epochs, is left out.

    Args:
        student_logits: Logits of the student, ``(N, C)``, at least two classes.
        teacher_logits: Logits of the teacher, ``(N, C)``.
        labels: Class of each image, ``(N,)``, long, from 0 to C - 1.
        alpha: Weight of TCKD. Defaults to 1.
        beta: Weight of NCKD. Defaults to 8, as Zhao et al. have for CIFAR-100; for ImageNet they
            have 0.5.
        temperature: Temperature *T*. Defaults to 4, as they have for CIFAR-100; for ImageNet they
            have 1.

    Returns:
        Scalar, at least float32. With two classes NCKD is zero.

    Raises:
        ValueError: If shapes do not match, there is one class only, or the temperature is not
            positive.
    """
    check_logits(student_logits, teacher_logits, temperature)
    if student_logits.ndim != 2 or student_logits.shape[1] < 2:
        raise ValueError(
            'logits must be (batch, classes) with at least two classes, but their shape is '
            f'{tuple(student_logits.shape)}'
        )
    if labels.shape != student_logits.shape[:1]:
        raise ValueError(
            f'labels must be ({len(student_logits)},), one class per image, but are '
            f'{tuple(labels.shape)}'
        )
    target = torch.zeros_like(student_logits, dtype=torch.bool).scatter_(1, labels[:, None], True)
    pair_student, rest_student = _split(student_logits, target, labels, temperature)
    pair_teacher, rest_teacher = _split(teacher_logits, target, labels, temperature)
    tckd = F.kl_div(pair_student, pair_teacher, reduction='sum', log_target=True)
    nckd = F.kl_div(rest_student, rest_teacher, reduction='sum', log_target=True)
    return (alpha * tckd + beta * nckd) * (temperature**2 / max(len(labels), 1))


def _split(
    logits: Tensor, target: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities of a class and the rest, and within the rest.

    Args:
        logits: ``(N, C)``.
        target: Where the class of each image is, ``(N, C)``, bool.
        labels: Class of each image, ``(N,)``.
        temperature: Temperature.

    Returns:
        ``(N, 2)`` and ``(N, C)``. In the latter the class itself has a probability of zero and a
        finite logarithm, so that its term of the divergence is zero instead of NaN.
    """
    scaled = at_least_float32(logits) / temperature
    log_p = F.log_softmax(scaled, dim=1)
    log_rest = log_p.masked_fill(target, -torch.inf).logsumexp(1)
    pair = torch.stack([log_p.gather(1, labels[:, None])[:, 0], log_rest], 1)
    # A quarter of the range, so that no difference overflows.
    lowest = torch.finfo(scaled.dtype).min / 4
    return pair, F.log_softmax(scaled.masked_fill(target, lowest), dim=1)
