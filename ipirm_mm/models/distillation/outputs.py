"""What a distillation loss compares: the outputs of student and teacher for a batch.

A teacher's logits come from a call of its head. A student's logits are recorded by a hook while
the head computes its own loss: a second call would cost time, and would draw other dropout masks.
Only where the head computed them with the labels (a margin head), it is called again without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmpretrain.models import HuggingFaceClassifier, ImageClassifier, TimmClassifier
from torch import Tensor, nn

from ..utils import (
    describe_output,
    head_logits,
    pool_last,
    pooled_feature,
    run_wrapped_classifier,
    score_kind,
    whole_images,
)
from .recorders import OutputRecorder, PreActivationRecorder, Recording, Stage


@dataclass
class NetworkOutputs:
    """Outputs of a network for a batch of N images.

    Attributes:
        logits: Logits that its ``predict`` turns into scores, ``(N, C)``; None if there are none.
        feature: Pooled feature before the classifier, ``(N, D)``.
        stages: Features before the last activation of each stage, ``(N, C_i, H_i, W_i)``. Empty
            unless a loss needs them.
        kind: How logits become scores: ``'softmax'``, ``'sigmoid'`` (several labels per image) or
            None (neither). Known in a dry run only.
        no_logits: Why there are no logits, after "the network".
        lost: Numbers of the stages that are trained, but whose features have no gradient.
        labels: Class of each image, ``(N,)`` long, of the student in a training step. None unless
            a loss needs them, or if the images do not have one class each.
    """

    logits: Tensor | None
    feature: Tensor
    stages: list[Tensor]
    kind: str | None = 'softmax'
    no_logits: str = 'is an encoder without a classifier'
    lost: tuple[int, ...] = ()
    labels: Tensor | None = None


def collect_outputs(
    network: nn.Module,
    inputs: Tensor,
    recorders: Sequence[PreActivationRecorder],
    dry_run: bool = False,
) -> NetworkOutputs:
    """Run a network on a batch and collect its outputs.

    Args:
        network: A classifier, or a self-supervised algorithm, which has no logits.
        inputs: Images, ``(N, C, H, W)``, normalized for the network.
        recorders: Recorders of the network's stages; may be empty.
        dry_run: Whether to find out how the network's logits become scores. Defaults to False.

    Returns:
        The outputs.

    Raises:
        UserError: If the network gives no features, or it is not known how to pool them.
    """
    outputs = NetworkOutputs(None, inputs, [])
    with Recording(recorders):
        if isinstance(network, (TimmClassifier, HuggingFaceClassifier)):
            outputs.logits, outputs.feature = run_wrapped_classifier(network, inputs)
        elif isinstance(network, ImageClassifier):
            with whole_images(network, inputs):
                features = network.extract_feat(inputs)
            if network.with_head:
                output = network.head(features)
                outputs.logits = head_logits(network.head, output)
                if outputs.logits is None:
                    outputs.no_logits = describe_output(network.head, output)
                elif dry_run:
                    outputs.kind = score_kind(network.head, features, outputs.logits)
            outputs.feature = pool_last(features, network)
        else:
            outputs.feature = pooled_feature(network, inputs)
    outputs.stages = [recorder.take() for recorder in recorders]
    return outputs


class StudentRecorder:
    """Records a student's outputs while it computes its own loss.

    Args:
        student: The student, an ``ImageClassifier`` with a head.
        stages: Stages of the student's backbone to record; may be empty.
    """

    def __init__(self, student: Any, stages: Sequence[Stage]) -> None:
        self.output = OutputRecorder(student.head)
        self.stages = [PreActivationRecorder(stage) for stage in stages]

    def recording(self) -> Recording:
        """Return the context within which outputs are recorded."""
        return Recording([self.output, *self.stages])

    def take(self, student: Any, features: Any) -> NetworkOutputs:
        """Return the outputs of the last pass.

        Args:
            student: The student.
            features: What the student's ``extract_feat`` returned in that pass.

        Returns:
            The outputs. The recorders keep no reference to them.
        """
        saw_labels, output = self.output.saw_more_than_features, self.output.take()
        if output is None or saw_labels:  # not recorded, or with the margin of the labels
            output = student.head(features)
        lost = [recorder.lost_gradient() for recorder in self.stages]
        return NetworkOutputs(
            head_logits(student.head, output),
            pool_last(features, student),
            [stage.take() for stage in self.stages],
            lost=tuple(number for number, is_lost in enumerate(lost) if is_lost),
        )
