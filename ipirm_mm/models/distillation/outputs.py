"""What a distillation loss compares: the outputs of student and teacher for a batch.

A teacher's logits come from a call of its head. A student's logits are recorded by a hook while
the head computes its own loss: a second call would cost time, and would draw other dropout masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from ..utils import pool_last, pooled_feature
from .recorders import OutputRecorder, PreActivationRecorder, Recording, Stage


@dataclass
class NetworkOutputs:
    """Outputs of a network for a batch of N images.

    Attributes:
        logits: Logits, ``(N, C)``; None if the network is not a classifier.
        feature: Pooled feature before the classifier, ``(N, D)``.
        stages: Features before the last activation of each stage, ``(N, C_i, H_i, W_i)``. Empty
            unless a loss needs them.
    """

    logits: Tensor | None
    feature: Tensor
    stages: list[Tensor]


def collect_outputs(
    network: nn.Module, inputs: Tensor, recorders: Sequence[PreActivationRecorder]
) -> NetworkOutputs:
    """Run a network on a batch and collect its outputs.

    Args:
        network: A classifier, or a self-supervised algorithm, which has no logits.
        inputs: Images, ``(N, C, H, W)``, normalized for the network.
        recorders: Recorders of the network's stages; may be empty.

    Returns:
        The outputs.
    """
    with Recording(recorders):
        if isinstance(network, ImageClassifier):
            features = network.extract_feat(inputs)
            logits = network.head(features) if network.with_head else None
            feature = pool_last(features)
        else:
            logits, feature = None, pooled_feature(network, inputs)
    return NetworkOutputs(logits, feature, [recorder.take() for recorder in recorders])


class StudentRecorder:
    """Records a student's outputs while it computes its own loss.

    Args:
        head: The student's head, whose output is the logits.
        stages: Stages of the student's backbone to record; may be empty.
    """

    def __init__(self, head: nn.Module, stages: Sequence[Stage]) -> None:
        self.logits = OutputRecorder(head)
        self.stages = [PreActivationRecorder(stage) for stage in stages]

    def recording(self) -> Recording:
        """Return the context within which outputs are recorded."""
        return Recording([self.logits, *self.stages])

    def take(self, features: Any) -> NetworkOutputs:
        """Return the outputs of the last pass.

        Args:
            features: What the student's ``extract_feat`` returned in that pass.

        Returns:
            The outputs. The recorders keep no reference to them.
        """
        return NetworkOutputs(
            self.logits.take(), pool_last(features), [stage.take() for stage in self.stages]
        )
