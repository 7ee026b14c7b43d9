"""Stage II: a classifier that learns from a teacher as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import pool_last
from ipirm_mm.functional import mean_teacher_logits

from ..sample_indices import sample_indices
from .distillation_losses import DistillationLoss, Responses
from .taps import OutputTap, PreActivationTap, find_stages, recording
from .teacher import Beside, FrozenTeacher, respond

# Side of the images of the dry run from which shapes are taken; widths do not depend on it.
_DRY_RUN = 64


@MODELS.register_module()
class DistillingClassifier(ImageClassifier):
    r"""MMPretrain's classifier as a student (report Section 3.2, Eq. 5).

    .. math:: L = \alpha L_{ce} + \sum_d \beta_d L_d

    The student is the classifier itself, under the usual names, so that its checkpoint is one of
    a plain ``ImageClassifier`` with what training added besides (``distill_losses.*``). Teachers
    hang beside the module tree: they are in no checkpoint, optimiser, DDP bucket or EMA.

    .. code-block:: python

        model = dict(
            type='DistillingClassifier',
            backbone=..., neck=..., head=...,
            teacher=dict(model='ipirm_mm::finetune/teacher_r50.py', checkpoint='work_dirs/...'),
            distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=0.9)],
            ce_weight=0.1,
        )

    Args:
        backbone: As in ``ImageClassifier``.
        neck: As there.
        head: As there.
        teacher: Arguments of :class:`FrozenTeacher`: ``model``, ``checkpoint``,
            ``batch_statistics``; or a list of them, of which the mean of their probabilities is
            the target.
        distill_losses: Config of a distillation loss, or a list of them.
        ce_weight: Weight alpha of the head's own loss. Defaults to 1.
        predict_teacher: Whether to predict with the teacher as well in ``val`` and ``test``, for
            ``TeacherAccuracy``. Defaults to False.
        **kwargs: Other arguments of ``ImageClassifier``.

    Raises:
        UserError: If options are out of range, or student and teacher cannot be compared.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        teacher: dict | Sequence[dict] = (),
        distill_losses: dict | Sequence[dict] = (),
        ce_weight: float = 1.0,
        predict_teacher: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, neck, head, **kwargs)
        teachers = [teacher] if isinstance(teacher, dict) else list(teacher)
        losses = [distill_losses] if isinstance(distill_losses, dict) else list(distill_losses)
        for name, given in (('teacher', teachers), ('distill_losses', losses)):
            if not given:
                raise UserError(f'DistillingClassifier.{name} is missing')
        if head is None:
            raise UserError('DistillingClassifier.head is missing: the student is a classifier')
        if ce_weight < 0:
            raise UserError(f'DistillingClassifier.ce_weight must not be negative: {ce_weight}')
        self.ce_weight = ce_weight
        self.predict_teacher = predict_teacher
        self.beside = Beside(
            [
                FrozenTeacher(**options, student_preprocessor=self.data_preprocessor)
                for options in teachers
            ]
        )
        self.distill_losses = nn.ModuleList(MODELS.build(loss) for loss in losses)
        self._logits = OutputTap(self.head)
        self._taps: list[PreActivationTap] = []
        if any(loss.reads_stages for loss in self._losses()):
            self._taps = [PreActivationTap(stage) for stage in find_stages(self.backbone)]
            for frozen in self.beside:
                frozen.tap_stages()
        self._dry_run()
        mixes = getattr(self.data_preprocessor, 'batch_augments', None) is not None
        for loss in self._losses():
            if mixes and not loss.allows_mixing:
                raise UserError(
                    f'{type(loss).__name__} compares whole images, but train_cfg.augments mixes '
                    'them (Mixup, CutMix): remove one of the two'
                )

    def _losses(self) -> list[DistillationLoss]:
        return list(self.distill_losses)  # type: ignore[arg-type]

    @torch.no_grad()
    def _dry_run(self) -> None:
        """Let student and teachers see an image, to build the losses by the shapes."""
        modes = [(module, module.training) for module in self.modules()]
        image = torch.zeros(1, 3, _DRY_RUN, _DRY_RUN)
        self.eval()
        student = respond(self, image, self._taps)
        teachers = [frozen(image, training=False) for frozen in self.beside]
        for loss in self._losses():
            loss.build(student, teachers)
        for module, mode in modes:
            module.training = mode

    def init_weights(self) -> None:
        """Initialise the student, and load the teachers, so that what is missing shows early."""
        super().init_weights()
        self._load_teachers()

    def _load_teachers(self) -> None:
        for number, frozen in enumerate(self.beside):
            if frozen.load():
                for loss in self._losses():
                    if loss.teacher == number:
                        loss.teacher_loaded(frozen.network)

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            inputs: Images, ``(N, C, H, W)``.
            data_samples: Their samples, with labels; for CRD with ``sample_idx``.

        Returns:
            The head's losses, weighted, as ``loss_ce``; each distillation loss, weighted; and what
            else the head reports.
        """
        self._load_teachers()
        # First, so that their activations are gone before the student's are kept.
        teachers = [frozen(inputs) for frozen in self.beside]
        with recording([self._logits, *self._taps]):
            features = self.extract_feat(inputs)
            losses = self.head.loss(features, data_samples)
        student = Responses(
            self._logits.take(), pool_last(features), [tap.take() for tap in self._taps]
        )
        # Named after what it is: MMEngine logs the sum of all as `loss`.
        losses['loss_ce'] = losses.pop('loss')
        for name, value in losses.items():
            if 'loss' in name:
                losses[name] = self.ce_weight * value
        sample_idx = None
        if all('sample_idx' in sample for sample in data_samples):
            sample_idx = sample_indices(data_samples, inputs.device)
        for loss in self._losses():
            name, number = f'loss_{loss.key}', 2
            while name in losses:
                name, number = f'loss_{loss.key}_{number}', number + 1
            losses[name] = loss.loss_weight * loss(student, teachers, sample_idx)
        return losses

    def predict(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs: Any
    ) -> list[DataSample]:
        """Predictions of the student.

        Args:
            inputs: Images, ``(N, C, H, W)``.
            data_samples: Their samples. Defaults to None, which makes new ones.
            **kwargs: For the head.

        Returns:
            The samples, as of ``ImageClassifier``; with ``predict_teacher`` also
            ``teacher_score``, the probabilities by the teachers, ``(C,)``.
        """
        samples = super().predict(inputs, data_samples, **kwargs)
        if self.predict_teacher:
            self._load_teachers()
            responses = [frozen(inputs, training=False) for frozen in self.beside]
            logits = [response.logits for response in responses if response.logits is not None]
            if len(logits) < len(responses):
                raise UserError(
                    'predict_teacher is on, but a teacher is an encoder without a classifier'
                )
            for sample, score in zip(samples, mean_teacher_logits(logits).softmax(1)):
                sample.set_field(score, 'teacher_score', dtype=Tensor)
        return samples
