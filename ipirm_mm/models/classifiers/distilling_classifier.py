"""Stage II: a classifier that also learns from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.functional import mean_teacher_binary_logits, mean_teacher_logits

from ..distillation import (
    DetachedModules,
    DistillationLoss,
    FrozenTeacher,
    StudentRecorder,
    dry_run,
    find_stages,
)
from ..utils import as_names, sample_indices, single_labels, wrong_labels


@MODELS.register_module()
class DistillingClassifier(ImageClassifier):
    r"""MMPretrain's classifier as a student (report Section 3.2, Eq. 5).

    .. math:: L = \alpha L_{ce} + \sum_d \beta_d L_d

    The student is this classifier itself, under the usual names. So its checkpoint is that of a
    plain ``ImageClassifier``, plus what training needs (``distill_losses.*``). Teachers are
    outside the module tree: they are in no checkpoint, optimizer, DDP bucket or EMA.

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
        neck: As in ``ImageClassifier``.
        head: As in ``ImageClassifier``; required.
        teacher: Arguments of :class:`~ipirm_mm.models.distillation.FrozenTeacher`: ``model``,
            ``checkpoint`` and ``batch_statistics``. Or a list of them, one per teacher.
        distill_losses: Config of a distillation loss, or a list of configs.
        ce_weight: Weight alpha of the head's own loss. Defaults to 1.
        predict_teacher: Whether to predict with the teacher too in ``val`` and ``test``, for
            ``TeacherAccuracy``. Defaults to False.
        input_size: Height and width, or one number, of the image on which the shapes of the
            features are found. Defaults to None: a size that student and teachers take.
        **kwargs: Other arguments of ``ImageClassifier``.

    Raises:
        UserError: If an option is missing or out of range, or student and teacher cannot be
            compared.
    """

    # What remains for inference, see ipirm_mm.models.utils.plain_classifier.
    student_parts = ('backbone', 'neck', 'head', 'data_preprocessor')

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        teacher: dict | Sequence[dict] = (),
        distill_losses: dict | Sequence[dict] = (),
        ce_weight: float = 1.0,
        predict_teacher: bool = False,
        input_size: int | Sequence[int] | None = None,
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
            raise UserError(
                f'DistillingClassifier.ce_weight must not be negative, but is {ce_weight}'
            )
        self.ce_weight = ce_weight
        self.predict_teacher = predict_teacher
        self._classes_matched = False
        # Of an earlier run in this process, if there is one.
        self._old_meta = id(MessageHub.get_current_instance().get_info('dataset_meta'))
        self.beside = DetachedModules(
            [
                FrozenTeacher(**options, student_preprocessor=self.data_preprocessor)
                for options in teachers
            ]
        )
        self.distill_losses = nn.ModuleList(MODELS.build(loss) for loss in losses)
        reads_stages = any(loss.reads_stages for loss in self._losses())
        self._recorder = StudentRecorder(self, find_stages(self.backbone) if reads_stages else [])
        if reads_stages:
            for frozen in self.beside:
                frozen.record_stages()
        self._build_losses(input_size)
        self._check_mixing()

    def _check_mixing(self) -> None:
        """Check that no images are mixed which a loss compares as a whole."""
        if getattr(self.data_preprocessor, 'batch_augments', None) is None:
            return
        for loss in self._losses():
            if not loss.allows_mixing:
                raise UserError(
                    f'{type(loss).__name__} {loss.why_no_mixing}, but train_cfg.augments (or the '
                    'SwitchRecipeHook) mixes them (Mixup, CutMix): remove one of the two'
                )

    def _losses(self) -> list[DistillationLoss]:
        return list(self.distill_losses)  # type: ignore[arg-type]

    def _build_losses(self, input_size: int | Sequence[int] | None) -> None:
        """Run student and teachers on one image, and build the losses for the shapes."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        student, teachers = dry_run(self, list(self.beside), self._recorder.stages, input_size)
        for loss in self._losses():
            loss.build(student, teachers)
        for module, mode in modes:
            module.training = mode

    def init_weights(self) -> None:
        """Initialize the student, and load the teachers, so that a missing file shows early."""
        super().init_weights()
        self._load_teachers()

    def _load_teachers(self) -> None:
        for number, frozen in enumerate(self.beside):
            if frozen.load():
                for loss in self._losses():
                    if loss.teacher == number:
                        loss.teacher_loaded(frozen.network)

    def train(self, mode: bool = True) -> DistillingClassifier:
        """Switch between training and evaluation, as every module.

        MMEngine's loops call this before their first step, when the names of the training set's
        classes are known. Teachers whose logits are compared then give them in that order.

        Args:
            mode: Whether to train. Defaults to True.

        Returns:
            The classifier.

        Raises:
            UserError: If a teacher has other classes than the training set, or a hook has begun
                to mix images that a loss compares as a whole.
        """
        if mode and not self._classes_matched:
            meta = MessageHub.get_current_instance().get_info('dataset_meta')
            if meta is not None and id(meta) != self._old_meta:
                self._classes_matched = True
                self._match_classes(as_names(meta.get('classes')))
        if mode:
            self._check_mixing()
        return super().train(mode)

    def _match_classes(self, names: tuple[str, ...] | None) -> None:
        if self.predict_teacher or any(loss.compares_classes for loss in self._losses()):
            for number, frozen in enumerate(self.beside):
                frozen.match_classes(names, f'teacher {number} ({frozen.checkpoint})')

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Compute the losses of a batch (report Eq. 5).

        Args:
            inputs: Images, ``(N, C, H, W)``.
            data_samples: Samples of the images, with labels; for CRD with ``sample_idx``.

        Returns:
            ``loss_ce``, the head's own loss, and each distillation loss, all multiplied by their
            weights; and other values that the head logs.
        """
        self._load_teachers()
        # Teachers run first, so that their activations are freed before the student's are kept.
        teachers = [frozen(inputs) for frozen in self.beside]
        with self._recorder.recording():
            features = self.extract_feat(inputs)
            losses = self._head_losses(features, data_samples)
        student = self._recorder.take(self, features)
        if any(loss.reads_labels for loss in self._losses()):
            student.labels = single_labels(data_samples)
        # MMEngine logs the sum of all losses as `loss`. A head of several tasks has one per task.
        if 'loss' in losses:
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
            if self.training and torch.is_grad_enabled():
                loss.check_reach(student)
        return losses

    def _head_losses(self, features: Any, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Compute the losses of the head itself."""
        try:
            return self.head.loss(features, data_samples)
        except NotImplementedError as error:
            raise UserError(
                f"the student's head {type(self.head).__name__} cannot be trained: {error} Set "
                'model.head.distillation=False if it has this option, or use another head'
            ) from error
        except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError) as error:
            wrong = wrong_labels(data_samples, getattr(self.head, 'num_classes', None))
            if wrong is None:
                raise
            raise UserError(wrong) from error

    def predict(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs: Any
    ) -> list[DataSample]:
        """Predict with the student.

        Args:
            inputs: Images, ``(N, C, H, W)``.
            data_samples: Samples of the images. Defaults to None: new samples are made.
            **kwargs: Arguments of the head's ``predict``.

        Returns:
            The samples, as ``ImageClassifier`` returns them. With ``predict_teacher`` they also
            have ``teacher_score``, the mean probabilities of the teachers, ``(C,)``.

        Raises:
            UserError: If ``predict_teacher`` is on and a teacher has no such probabilities.
        """
        samples = super().predict(inputs, data_samples, **kwargs)
        if self.predict_teacher:
            self._load_teachers()
            scores = self._teacher_scores(inputs)
            for sample, score in zip(samples, scores):
                sample.set_field(score, 'teacher_score', dtype=Tensor)
        return samples

    def _teacher_scores(self, inputs: Tensor) -> Tensor:
        """Mean probabilities of the teachers, ``(N, C)``."""
        outputs = [frozen(inputs, training=False) for frozen in self.beside]
        for number, output in enumerate(outputs):
            if output.logits is None:
                raise UserError(
                    f'model.predict_teacher is True, but teacher {number} {output.no_logits}: set '
                    'it to False, or use a fine-tuned teacher with one output'
                )
        kinds = {frozen.kind for frozen in self.beside}
        if len(kinds) > 1 or None in kinds:
            raise UserError(
                'model.predict_teacher is True, but the heads of the teachers do not all score '
                'their logits by softmax, or all by sigmoid: set it to False'
            )
        logits = [output.logits for output in outputs if output.logits is not None]
        if kinds == {'sigmoid'}:
            return mean_teacher_binary_logits(logits).sigmoid()
        return mean_teacher_logits(logits).softmax(1)
