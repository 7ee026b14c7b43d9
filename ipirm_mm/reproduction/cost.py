"""How long a training takes, by counted operations."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from ipirm_mm.engine.memory import StepCounter, image_size
from ipirm_mm.errors import UserError

IMAGES_PER_SPLIT = 50_000  # 50 images of each of 1,000 classes
#: Operations per second of one card, in TFLOPS: half of the 15.7 in 32 bits that the data sheet
#: of the V100 gives, the card of the report. It is an assumption; nothing was timed.
CARD_TFLOPS = 7.85


def training_operations(config: Any) -> float:
    """Count the operations of a training.

    Matrix products and convolutions of the forward and backward passes, those of teachers
    included, are counted on tensors without data. Data loading, Step 2 of Stage I and validation
    are not.

    Args:
        config: The config.

    Returns:
        Floating-point operations; a multiplication and its addition are two.

    Raises:
        UserError: If the train pipeline does not say how large its images are.
    """
    size = image_size(config)
    if size is None:
        raise UserError(f'the train pipeline of {config.filename} has no size of its images')
    batch = 4  # the operations of the networks are proportional to it
    with FlopCounterMode(display=False) as counter:
        StepCounter(config).count(batch, size)
    splits = config.train_dataloader.dataset.get('split', 'train')
    images = IMAGES_PER_SPLIT * (1 if isinstance(splits, str) else len(splits))
    return counter.get_total_flops() / batch * images * config.train_cfg.max_epochs


def training_hours(config: Any, cards: int, tflops: float = CARD_TFLOPS) -> float:
    """Estimate how long a training takes.

    Args:
        config: The config.
        cards: Number of cards.
        tflops: Operations per second of one card, in TFLOPS. Defaults to :data:`CARD_TFLOPS`.

    Returns:
        Hours.

    Raises:
        UserError: As :func:`training_operations`.
    """
    return training_operations(config) / (cards * tflops * 1e12) / 3600
