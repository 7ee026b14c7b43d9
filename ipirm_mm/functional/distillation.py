"""Stage II: what a student is asked to share with its teacher (report Section 3.2, Table 4)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .contrastive import at_least_float32

# Keeps the logarithms of CRD finite (authors' code).
_EPSILON = 1e-7
_MASK_32 = 0xFFFFFFFF


def kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    r"""Divergence of the student's classes from the teacher's (report Eq. 4; Hinton et al., 2015).

    .. math:: \frac{T^2}{N} \sum_n \sum_c p^t_{nc} (\log p^t_{nc} - \log p^s_{nc}),
        \quad p = \mathrm{softmax}(z / T)

    Args:
        student_logits: ``(N, C)``.
        teacher_logits: ``(N, C)``.
        temperature: Temperature *T*. Defaults to 1.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f'student_logits {tuple(student_logits.shape)} and teacher_logits '
            f'{tuple(teacher_logits.shape)} must have the same shape'
        )
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, but is {temperature}')
    log_student = F.log_softmax(at_least_float32(student_logits) / temperature, dim=1)
    log_teacher = F.log_softmax(at_least_float32(teacher_logits) / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction='sum', log_target=True)
    return divergence * (temperature**2 / max(len(student_logits), 1))


def mean_teacher_logits(logits: list[Tensor], temperature: float = 1.0) -> Tensor:
    """Logits whose softmax at a temperature is the mean of several teachers' probabilities.

    Args:
        logits: One ``(N, C)`` for each teacher.
        temperature: Temperature at which the probabilities are averaged. Defaults to 1.

    Returns:
        ``(N, C)``; with one teacher its own.
    """
    if len(logits) == 1:
        return logits[0]
    log_p = torch.stack([F.log_softmax(at_least_float32(z) / temperature, dim=1) for z in logits])
    return temperature * (log_p.logsumexp(0) - math.log(len(logits)))


def ofd_margin(weight: Tensor, bias: Tensor) -> Tensor:
    r"""Margin of each channel: the mean of its negative responses (Heo et al., 2019, Eq. 4).

    Batch normalisation makes a channel normal with mean :math:`\beta` and deviation
    :math:`s = |\gamma|`, so that with :math:`z = -\beta / s`

    .. math:: m = E[x \mid x < 0] = \beta - s \, \phi(z) / \Phi(z),

    and :math:`m = -3s` where :math:`\Phi(z) \le 0.001` (authors' code). A channel of weight 0, at
    which the authors' code fails, is constant: its margin is :math:`\min(\beta, 0)`.

    Args:
        weight: Weight :math:`\gamma` of the normalisation before the ReLU, ``(C,)``.
        bias: Its bias :math:`\beta`, ``(C,)``.

    Returns:
        ``(C,)``, in the type of ``weight``; computed in float64.
    """
    scale, shift = weight.detach().double().abs(), bias.detach().double()
    z = -shift / scale.where(scale > 0, torch.ones_like(scale))
    below = torch.special.ndtr(z)  # Phi
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    rare = below <= 0.001
    mean = shift - scale * density / below.where(~rare, torch.ones_like(below))
    margin = torch.where(rare, -3 * scale, mean)
    return torch.where(scale > 0, margin, shift.clamp(max=0)).to(weight.dtype)


def ofd_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    r"""Partial squared distance of features before a ReLU (Heo et al., 2019, Eq. 2 and 3).

    .. math:: \sum (F_s - F_t)^2 \cdot 1[F_s > F_t \text{ or } F_t > 0], \quad F_t = \max(f_t, m)

    Where the teacher is below its margin the student may be as well, by any amount.

    Args:
        student: Student's features behind its connector, ``(N, C, H, W)``.
        teacher: Teacher's features before the ReLU, ``(N, C, H, W)``.
        margin: Margin of each channel, ``(C,)``, see :func:`ofd_margin`.

    Returns:
        Scalar, a plain sum over all elements; at least float32.

    Raises:
        ValueError: If the shapes do not match.
    """
    if student.shape != teacher.shape or margin.shape != student.shape[1:2]:
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the '
            f'same shape, and margin {tuple(margin.shape)} one value a channel'
        )
    return _OFDDistance.apply(student, teacher, margin)


class _OFDDistance(torch.autograd.Function):
    """The distance, with as few passes over the features as there are.

    Autograd would keep five arrays of their size, and write six more.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:  # type: ignore[override]
        # In half precision a sum of squares overflows.
        precise = torch.promote_types(student.dtype, torch.float32)
        target = torch.maximum(teacher, margin.to(precise).view(1, -1, 1, 1))
        difference = student - target
        # It counts where the greater of difference and target is positive. (The operator is the
        # way back through a ReLU, in place; a `where` takes ten times as long on processors.)
        greater = torch.maximum(difference, target, out=target)
        torch.ops.aten.threshold_backward.grad_input(difference, greater, 0, grad_input=difference)
        ctx.save_for_backward(difference)
        ctx.dtype = student.dtype
        # Map by map: one norm of all would lose three digits in float32 on processors.
        return torch.linalg.vector_norm(difference, dim=(2, 3)).square().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        (difference,) = ctx.saved_tensors
        return (2 * grad * difference).to(ctx.dtype), None, None


def crd_scores(
    embedding: Tensor, memory: Tensor, index: Tensor, temperature: float = 0.07
) -> Tensor:
    """Exponentiated similarity of embeddings with rows of a memory (Tian et al., 2020).

    The similarities with all rows are one matrix product, from which those asked for are picked:
    the same numbers as from the picked rows, of which the copy would be ``d`` times as large.

    Args:
        embedding: ``(N, d)``, rows of unit norm.
        memory: ``(n, d)``.
        index: Rows of the memory for each embedding, ``(N, 1 + K)``.
        temperature: Temperature. Defaults to 0.07.

    Returns:
        ``(N, 1 + K)``, at least float32.
    """
    # Under autocast the product would be in half precision, whose exponential overflows.
    with torch.autocast(embedding.device.type, enabled=False):
        embedding = at_least_float32(embedding)
        # The tall matrix on the left: the product is a third faster on processors.
        similarity = (memory.to(embedding.dtype) @ embedding.t()).t()
        return similarity.gather(1, index).div(temperature).exp()


def crd_constants(
    student: Tensor,
    teacher: Tensor,
    memory_student: Tensor,
    memory_teacher: Tensor,
    index: Tensor,
    temperature: float = 0.07,
) -> Tensor:
    """Normalisation constants of CRD from a first batch: ``n`` times the mean score of each side.

    Args:
        student: See :func:`crd_loss`, as all others.
        teacher: See there.
        memory_student: See there.
        memory_teacher: See there.
        index: See there.
        temperature: See there.

    Returns:
        ``z_student`` and ``z_teacher``, ``(2,)``, without gradient.
    """
    with torch.no_grad():
        scores_s = crd_scores(student, memory_teacher, index, temperature)
        scores_t = crd_scores(teacher, memory_student, index, temperature)
        return len(memory_student) * torch.stack((scores_s.mean(), scores_t.mean()))


def crd_loss(
    student: Tensor,
    teacher: Tensor,
    memory_student: Tensor,
    memory_teacher: Tensor,
    index: Tensor,
    z_student: float | Tensor,
    z_teacher: float | Tensor,
    temperature: float = 0.07,
) -> tuple[Tensor, Tensor]:
    r"""Contrastive representation distillation (Tian et al., 2020, Eq. 17; authors' code).

    A student's embedding shall pick its own image from the memory of the teacher's among *K*
    others, and a teacher's embedding from the memory of the student's. With :math:`P = E / Z`,
    :math:`E` of :func:`crd_scores` and :math:`c = K / n`, each side's loss is

    .. math:: -\frac{1}{N} \sum_b \Big[ \log\frac{P_{b0}}{P_{b0} + c + \epsilon}
        + \sum_{k \ge 1} \log\frac{c}{P_{bk} + c + \epsilon} \Big]

    Args:
        student: Student's embeddings, ``(N, d)``, rows of unit norm.
        teacher: Teacher's embeddings, ``(N, d)``, rows of unit norm.
        memory_student: Student's memory, ``(n, d)``, a row for each training image.
        memory_teacher: Teacher's memory, ``(n, d)``.
        index: Rows to compare with, ``(N, 1 + K)``, the positive first.
        z_student: Constant :math:`Z` of the student's scores, see :func:`crd_constants`.
        z_teacher: Constant of the teacher's scores.
        temperature: Temperature. Defaults to 0.07.

    Returns:
        ``(loss_s, loss_t)``, scalars, at least float32.

    Raises:
        ValueError: If ``index`` does not match.
    """
    if index.ndim != 2 or len(index) != len(student) or index.shape[1] < 2:
        raise ValueError(
            f'index must be (N, 1 + K) with N = {len(student)} and K >= 1, but is '
            f'{tuple(index.shape)}'
        )
    sides = []
    for embedding, memory, constant in (
        (student, memory_teacher, z_student),
        (teacher, memory_student, z_teacher),
    ):
        embedding = at_least_float32(embedding)
        sides.append(_CRDSide.apply(embedding, memory, index, constant, temperature))
    return sides[0], sides[1]


class _CRDSide(torch.autograd.Function):
    """Loss of one side, with a gradient that does not need the memory later.

    It is computed in the forward pass, so that the memory can be updated in place before the
    backward pass. With ``s`` the exponent of a score, ``dL/ds`` is ``P / (P + c + e) / N``, for
    the positive less ``1 / N``.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        embedding: Tensor,
        memory: Tensor,
        index: Tensor,
        constant: float | Tensor,
        temperature: float,
    ) -> Tensor:
        noise = (index.shape[1] - 1) / len(memory)
        p = crd_scores(embedding, memory, index, temperature) / constant
        # log((P + c + e) / c) of all, less log(P / c) of the positive.
        loss = torch.log1p((p + _EPSILON) / noise).sum() - (p[:, 0] / noise).log().sum()
        if ctx.needs_input_grad[0]:
            slope = p / (p + (noise + _EPSILON))
            slope[:, 0] -= 1
            scattered = slope.new_zeros(len(slope), len(memory)).scatter_add_(1, index, slope)
            with torch.autocast(embedding.device.type, enabled=False):
                gradient = scattered @ memory.to(slope.dtype)
            ctx.save_for_backward(gradient / (temperature * len(embedding)))
        return loss / len(embedding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None, None


class ClassIndex(NamedTuple):
    """The training images by class, for :func:`crd_index`; made by :func:`index_classes`.

    Attributes:
        labels: Class of each image, ``(n,)``, long.
        order: Images sorted by class, ``(n,)``, long.
        first: Where each class begins in ``order``, ``(C,)``, long.
        sizes: Images of each class, ``(C,)``, long.
        fewest_negatives: Images outside the largest class.
    """

    labels: Tensor
    order: Tensor
    first: Tensor
    sizes: Tensor
    fewest_negatives: int


def index_classes(labels: Tensor) -> ClassIndex:
    """Sort the training images by class.

    Args:
        labels: Class of each image, ``(n,)``, long.

    Raises:
        ValueError: If there are fewer than two classes, so that nothing is a negative.
    """
    sizes = labels.bincount()
    fewest = len(labels) - int(sizes.max())
    if fewest == 0:
        raise ValueError('negatives are images of other classes, but there is only one class')
    return ClassIndex(labels, labels.argsort(stable=True), sizes.cumsum(0) - sizes, sizes, fewest)


def crd_index(
    sample_idx: Tensor,
    classes: ClassIndex,
    num_negatives: int,
    step: Tensor,
    seed: int = 0,
    relax: bool = False,
) -> Tensor:
    """Draw what each image of a batch is compared with: itself, and images of other classes.

    A draw depends on the seed, the step and the image only: not on the device, the rest of the
    batch, or which process has the image. Negatives are drawn without replacement unless some
    image has fewer of them than are asked for (both as in the authors' code).

    Args:
        sample_idx: Indices of the batch's images in the training set, ``(N,)``, long.
        classes: The training set by class.
        num_negatives: Number *K* of negatives.
        step: Number of the step, a scalar long tensor.
        seed: Seed. Defaults to 0.
        relax: Whether the positive is any image of the same class. Defaults to False.

    Returns:
        ``(N, 1 + K)``, long, the positive first.
    """
    n = len(classes.labels)
    own = classes.labels[sample_idx][:, None]
    size, first = classes.sizes[own], classes.first[own]
    # A stream of random numbers for each image, of which the first is the positive's.
    bits = _random_bits(
        sample_idx,
        step,
        seed,
        1 + (n if num_negatives <= classes.fewest_negatives else num_negatives),
    )
    positive = sample_idx[:, None]
    if relax:
        positive = classes.order[first + (bits[:, :1] * size >> 32)]
    if num_negatives <= classes.fewest_negatives:
        keys = bits[:, 1:].masked_fill(own == classes.labels, _MASK_32 + 1)
        negatives = keys.topk(num_negatives, dim=1, largest=False, sorted=False).indices
    else:
        drawn = bits[:, 1:] * (n - size) >> 32
        negatives = classes.order[torch.where(drawn < first, drawn, drawn + size)]
    return torch.cat((positive, negatives), 1)


def _random_bits(sample_idx: Tensor, step: Tensor, seed: int, count: int) -> Tensor:
    """Numbers of 32 random bits, ``(N, count)``, as a hash of seed, step, image and column.

    The rounds are those that finish MurmurHash3 (public domain), which let each bit of the input
    change each bit of the output with probability one half.
    """
    key = _mix(torch.as_tensor(step, device=sample_idx.device) + _mix(seed))
    key = _mix(key + sample_idx)
    columns = torch.arange(count, device=sample_idx.device) * 0x9E3779B9
    return _mix(key[:, None] ^ _mix(columns & _MASK_32))


def _mix(x: Any) -> Any:
    """Mix 32 bits, of a number or held in int64."""
    x = x & _MASK_32
    x = (x ^ (x >> 16)) * 0x85EBCA6B & _MASK_32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & _MASK_32
    return x ^ (x >> 16)
