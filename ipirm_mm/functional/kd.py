"""Stage II: knowledge distillation of probabilities (report Eq. 4, Table 4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ._common import at_least_float32, check_logits


def kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    r"""Kullback-Leibler divergence of class probabilities (report Eq. 4; Hinton et al., 2015).

    This is :math:`KL(p^t \| p^s)`, of the teacher to the student: the teacher's probabilities
    weigh the differences of the logarithms. The report writes :math:`KL(p, q)` with *p* of the
    student and *q* of the teacher, and does not define it. It is read here in the order of the
    arguments of PyTorch's ``kl_div``, student first, which computes this direction; so does most
    code. The factor :math:`T^2` is that of Hinton et al.; the report has none.

    .. math:: \frac{T^2}{N} \sum_n \sum_c p^t_{nc} (\log p^t_{nc} - \log p^s_{nc}),
        \quad p = \mathrm{softmax}(z / T)

    Args:
        student_logits: Logits of the student, ``(N, C)``.
        teacher_logits: Logits of the teacher, ``(N, C)``.
        temperature: Temperature *T*. Defaults to 1.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    check_logits(student_logits, teacher_logits, temperature)
    log_student = F.log_softmax(at_least_float32(student_logits) / temperature, dim=1)
    log_teacher = F.log_softmax(at_least_float32(teacher_logits) / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction='sum', log_target=True)
    return divergence * (temperature**2 / max(len(student_logits), 1))


def binary_kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    r"""Kullback-Leibler divergence of the probabilities of several labels per image.

    Each label is a distribution of its own, present or absent. The divergences are summed over
    labels and averaged over images, as :func:`kl_divergence` does with classes. An addition of
    this package; the report has one label per image.

    .. math:: \frac{T^2}{N} \sum_n \sum_c \left[ p^t_{nc} \log \frac{p^t_{nc}}{p^s_{nc}}
        + (1 - p^t_{nc}) \log \frac{1 - p^t_{nc}}{1 - p^s_{nc}} \right],
        \quad p = \mathrm{sigmoid}(z / T)

    Args:
        student_logits: Logits of the student, ``(N, C)``.
        teacher_logits: Logits of the teacher, ``(N, C)``.
        temperature: Temperature *T*. Defaults to 1.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    check_logits(student_logits, teacher_logits, temperature)
    student, teacher = (
        at_least_float32(logits) / temperature for logits in (student_logits, teacher_logits)
    )
    present = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    absent = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (present + absent).sum() * (temperature**2 / max(len(student), 1))


def mean_teacher_logits(logits: list[Tensor], temperature: float = 1.0) -> Tensor:
    """Logits whose softmax at a temperature is the mean of several teachers' probabilities.

    Several teachers are an addition of this package; the report has one.

    Args:
        logits: Logits of each teacher, ``(N, C)`` each.
        temperature: Temperature at which the probabilities are averaged. Defaults to 1.

    Returns:
        ``(N, C)``. With one teacher, its own logits.
    """
    if len(logits) == 1:
        return logits[0]
    log_p = torch.stack([F.log_softmax(at_least_float32(z) / temperature, dim=1) for z in logits])
    return temperature * (log_p.logsumexp(0) - math.log(len(logits)))


def mean_teacher_binary_logits(logits: list[Tensor], temperature: float = 1.0) -> Tensor:
    """Logits whose sigmoid at a temperature is the mean of several teachers' probabilities.

    Args:
        logits: Logits of each teacher, ``(N, C)`` each.
        temperature: Temperature at which the probabilities are averaged. Defaults to 1.

    Returns:
        ``(N, C)``. With one teacher, its own logits.
    """
    if len(logits) == 1:
        return logits[0]
    scaled = torch.stack([at_least_float32(z) / temperature for z in logits])
    present, absent = F.logsigmoid(scaled).logsumexp(0), F.logsigmoid(-scaled).logsumexp(0)
    return temperature * (present - absent)
