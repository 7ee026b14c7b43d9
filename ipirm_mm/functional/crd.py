"""Stage II: contrastive representation distillation, CRD (Tian et al., 2020; report Table 4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._common import at_least_float32

# Keeps the logarithms finite (code of Tian et al.).
_EPSILON = 1e-7
_MASK_32 = 0xFFFFFFFF


def crd_scores(
    embedding: Tensor, memory: Tensor, index: Tensor, temperature: float = 0.07
) -> Tensor:
    """Exponentiated similarity of embeddings with rows of a memory (Tian et al., 2020).

    One matrix product gives the similarities with all rows, and the wanted ones are picked from
    it. The numbers are those of the picked rows, whose copy would be ``d`` times as large.

    Args:
        embedding: Embeddings of a batch, ``(N, d)``, rows of unit norm.
        memory: Memory, ``(n, d)``, one row per training image.
        index: Rows of the memory for each embedding, ``(N, 1 + K)``.
        temperature: Temperature. Defaults to 0.07.

    Returns:
        ``(N, 1 + K)``, at least float32.
    """
    # Under autocast the product would be in half precision, whose exponential overflows.
    with torch.autocast(embedding.device.type, enabled=False):
        embedding = at_least_float32(embedding)
        # With the tall matrix on the left the product is a third faster on processors.
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
    """Normalization constants of CRD from a first batch (code of Tian et al.).

    Each is the number of training images ``n`` times the mean score of its side.

    Args:
        student: Student's embeddings, ``(N, d)``, rows of unit norm.
        teacher: Teacher's embeddings, ``(N, d)``, rows of unit norm.
        memory_student: Student's memory, ``(n, d)``, one row per training image.
        memory_teacher: Teacher's memory, ``(n, d)``.
        index: Rows to compare with, ``(N, 1 + K)``, the positive first.
        temperature: Temperature. Defaults to 0.07.

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
    r"""Contrastive representation distillation (Tian et al., 2020, Eq. 17, and their code).

    A student's embedding has to find its own image among *K* other images in the teacher's memory,
    and a teacher's embedding in the student's memory. With :math:`P = E / Z`, :math:`E` of
    :func:`crd_scores` and :math:`c = K / n`, each side's loss is

    .. math:: -\frac{1}{N} \sum_b \Big[ \log\frac{P_{b0}}{P_{b0} + c + \epsilon}
        + \sum_{k \ge 1} \log\frac{c}{P_{bk} + c + \epsilon} \Big]

    Args:
        student: Student's embeddings, ``(N, d)``, rows of unit norm.
        teacher: Teacher's embeddings, ``(N, d)``, rows of unit norm.
        memory_student: Student's memory, ``(n, d)``, one row per training image.
        memory_teacher: Teacher's memory, ``(n, d)``.
        index: Rows to compare with, ``(N, 1 + K)``, the positive first.
        z_student: Constant :math:`Z` of the student's scores, from :func:`crd_constants`.
        z_teacher: Constant of the teacher's scores.
        temperature: Temperature. Defaults to 0.07.

    Returns:
        Loss of the student's and of the teacher's side, scalars, at least float32.

    Raises:
        ValueError: If ``index`` has a wrong shape.
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
    """Loss of one side, whose backward pass does not need the memory.

    The gradient is computed in the forward pass, so the memory may be updated in place before the
    backward pass. With ``s`` the exponent of a score, ``dL/ds`` is ``P / (P + c + e) / N``, minus
    ``1 / N`` for the positive.
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
        # The sum of log((P + c + e) / c) over all, minus log(P / c) of the positive.
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
    """The training images sorted by class, as :func:`index_classes` returns them.

    Attributes:
        labels: Class of each image, ``(n,)``, long.
        order: Images sorted by class, ``(n,)``, long.
        first: Position in ``order`` where each class begins, ``(C,)``, long.
        sizes: Number of images of each class, ``(C,)``, long.
        fewest_negatives: Number of images outside the largest class.
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

    Returns:
        A :class:`ClassIndex` on the device of the labels.

    Raises:
        ValueError: If there is only one class, so that no image is a negative.
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
    """Draw the positive and the negatives of each image of a batch.

    A draw depends only on the seed, the step and the image: not on the device, the rest of the
    batch, or the process. Negatives are images of other classes. They are drawn without
    replacement, unless an image has fewer than ``num_negatives`` of them (both as in the code of
    Tian et al.).

    Args:
        sample_idx: Indices of the batch's images in the training set, ``(N,)``, long.
        classes: The training images by class, from :func:`index_classes`.
        num_negatives: Number *K* of negatives.
        step: Number of the step, a scalar long tensor.
        seed: Seed. Defaults to 0.
        relax: Whether the positive is a random image of the same class. Defaults to False: the
            image itself.

    Returns:
        ``(N, 1 + K)``, long, the positive first.
    """
    n = len(classes.labels)
    own = classes.labels[sample_idx][:, None]
    size, first = classes.sizes[own], classes.first[own]
    # A stream of random numbers per image; the first one is for the positive.
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
    """Numbers of 32 random bits, ``(N, count)``: a hash of seed, step, image and column.

    The rounds are the finalizer of MurmurHash3 (public domain): each bit of the input changes each
    bit of the output with a probability of one half.
    """
    key = _mix(torch.as_tensor(step, device=sample_idx.device) + _mix(seed))
    key = _mix(key + sample_idx)
    columns = torch.arange(count, device=sample_idx.device) * 0x9E3779B9
    return _mix(key[:, None] ^ _mix(columns & _MASK_32))


def _mix(x: Any) -> Any:
    """Mix the 32 bits of an int, or of each element of an int64 tensor."""
    x = x & _MASK_32
    x = (x ^ (x >> 16)) * 0x85EBCA6B & _MASK_32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & _MASK_32
    return x ^ (x >> 16)
