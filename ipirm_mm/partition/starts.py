"""Ways to find a partition: strategies of their own, and starts of the local moves."""

from __future__ import annotations

import torch
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional.partition import balance_term, block_objective

from .candidates import Candidate, Start
from .cluster_start import cluster_search_subsets
from .kmeans import kmeans
from .objective import BlockedObjective
from .sharing import Progress

# The early stop of Wang et al.'s optimizer: after 51 epochs, once five epochs in a row have not
# raised the best objective.
_MIN_EPOCHS = 51
_PATIENCE = 5


def optimize_soft_partition(
    objective: BlockedObjective,
    generator: torch.Generator,
    report: Progress,
    epochs: int = 61,
) -> list[Candidate]:
    """The optimizer of Wang et al. (IP-IRM, NeurIPS 2021; code Wangt-CN/IP-IRM).

    Adam on the logits of a soft partition, with learning rate 0.5, times 0.2 after epochs 5 and
    35, from standard normal logits. Each epoch divides the images into blocks by a new
    permutation (with MixUp, of the groups of partners) and takes the next draw of the augmentation
    and of MixUp. After 51 epochs it stops early, once
    five epochs in a row have not raised the best objective. The argmax of the logits of the best
    epoch is the result.

    Args:
        objective: The objective. Its division into blocks is used only if there is one block.
        generator: Random generator; only its initial seed is used, so that the result is the same
            as a strategy and as a start.
        report: Called with the fraction done and a text.
        epochs: Maximum number of epochs. Defaults to 61.

    Returns:
        One candidate, whose history is the mean soft objective of each epoch.
    """
    options = objective.options
    generator = torch.Generator().manual_seed(generator.initial_seed())
    draws, images = objective.z1.shape[:2]
    logits = torch.randn(images, options.num_subsets, generator=generator).to(objective.z1)
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.5)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 35], gamma=0.2)
    best_value, best_logits = -float('inf'), logits.detach().clone()
    in_vain = 0  # epochs since the best one
    history: list[float] = []
    one_block = images <= options.block_size
    for epoch in range(epochs):
        # In one block a permutation only changes the order of the entries of the vector dummy.
        blocks = objective.blocks if one_block else objective.random_blocks(generator)
        total = 0.0
        # The logits that the objective of this epoch was computed with. They are copied block by
        # block, since each step of Adam changes the logits of all images.
        used = torch.empty_like(logits)
        for number, index in enumerate(blocks):
            if number:  # other ranks wait for it to report
                fraction = (epoch + number / len(blocks)) / epochs
                report(fraction, f'authors: epoch {epoch + 1}/{epochs}')
            used[index] = logits.detach()[index]
            if len(index) < 2:
                continue
            draw = epoch % draws
            if one_block:
                similarity = objective.similarities(0)[draw]
            else:
                similarity = objective.similarity(index, draw)
            weights = logits[index].softmax(1)
            value = block_objective(similarity, weights, options.irm_weight)
            value = value + balance_term(weights.mean(0), options.balance)
            optimizer.zero_grad()
            (-value).backward()
            optimizer.step()
            total += float(value.detach()) * len(index)
        scheduler.step()
        history.append(total / images)
        if history[-1] > best_value:
            best_value, best_logits, in_vain = history[-1], used, 0
        else:
            in_vain += 1
        report(
            (epoch + 1) / epochs,
            f'authors: epoch {epoch + 1}/{epochs}, objective {history[-1]:.4f}',
        )
        if epoch >= _MIN_EPOCHS and in_vain >= _PATIENCE:
            break
    return [Candidate(best_logits.argmax(1), 'authors', history)]


def kmeans_subsets(
    objective: BlockedObjective, generator: torch.Generator, report: Progress
) -> list[Candidate]:
    """k-means with one cluster per subset, on the mean projection of each image."""
    assignment = kmeans(objective.mean, objective.options.num_subsets, generator)
    return [Candidate(assignment, 'kmeans')]


def random_subsets(
    objective: BlockedObjective, generator: torch.Generator, report: Progress
) -> list[Candidate]:
    """Random subsets whose sizes differ by one image at most."""
    order = torch.randperm(len(objective.mean), generator=generator).to(objective.mean.device)
    return [Candidate(order % objective.options.num_subsets, 'random')]


def principal_component_subsets(
    objective: BlockedObjective, generator: torch.Generator, report: Progress
) -> list[Candidate]:
    """Quantiles along each of the first three principal components of the mean projections."""
    mean, num_subsets = objective.mean, objective.options.num_subsets
    centered = mean - mean.mean(0)
    # The covariance is (D, D): cheaper than a decomposition of all images.
    _, vectors = torch.linalg.eigh(centered.T @ centered)
    candidates = []
    for number in range(1, min(3, mean.shape[1]) + 1):
        rank = (centered @ vectors[:, -number]).argsort().argsort()
        candidates.append(Candidate(rank * num_subsets // len(rank), f'pca {number}'))
    return candidates


def factor_subsets(factor: Tensor | None, num_images: int, num_subsets: int) -> Tensor:
    """The partition by a known factor of the images.

    Args:
        factor: Factor of each image, ``(N,)`` integers.
        num_images: Number of images *N*.
        num_subsets: Number of subsets *K*.

    Returns:
        The factor modulo K, ``(N,)`` long.

    Raises:
        UserError: If ``factor`` is None or its shape is not ``(N,)``.
    """
    if factor is None:
        raise UserError(
            "PartitionSolver.strategy='factor' needs the factor of each image: have the data "
            'pipeline set it (TintByFactor) and pack it, PackInputs(meta_keys='
            "('sample_idx', 'factor'))"
        )
    if factor.shape != (num_images,):
        raise UserError(
            f'factor must be one integer for each of the {num_images} images, but its shape is '
            f'{tuple(factor.shape)}'
        )
    return factor.long() % num_subsets


STARTS: dict[str, Start] = {
    'authors': optimize_soft_partition,
    'kmeans': kmeans_subsets,
    'clusters': cluster_search_subsets,
    'pca': principal_component_subsets,
    'random': random_subsets,
}
