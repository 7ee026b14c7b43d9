"""The hook that compares the names of the classes of teachers and data sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from ipirm_mm.evaluation import PredictionEvaluator
from ipirm_mm.models.distillation import LogitKL
from ipirm_mm.models.utils import as_names, class_names, class_order, say_unknown


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Lets the classes of teachers and of the validation split be those of the training set.

    Teachers whose logits are compared, and validation splits, that have the same classes in
    another order are mapped; those of other classes are refused. Our tools register the hook.

    Raises:
        UserError: Before training, if classes differ. The message has the first difference.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the names of the classes, and map what has another order.

        Args:
            runner: The runner of the training.
        """
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, BaseClassifier):
            return  # self-supervised training has no classes
        names = _names_of(runner.train_dataloader)
        loop: Any = runner._val_loop
        if isinstance(loop, BaseLoop) and type(getattr(loop, 'evaluator', None)) is Evaluator:
            own = _names_of(loop.dataloader)
            order = class_order(own, names, 'the validation split', 'the training set')
            if order is not None:
                meta = loop.evaluator.dataset_meta
                loop.evaluator = PredictionEvaluator(loop.evaluator.metrics, order)
                loop.evaluator.dataset_meta = meta
        losses = getattr(model, 'distill_losses', ())
        if any(isinstance(loss, LogitKL) for loss in losses):
            for number, teacher in enumerate(getattr(model, 'beside', ())):
                self._map_teacher(teacher, number, names)

    def _map_teacher(self, teacher: Any, number: int, names: tuple[str, ...] | None) -> None:
        own = class_names(teacher.checkpoint) if teacher.checkpoint else None
        name = f'teacher {number} ({teacher.checkpoint})'
        order = class_order(names, own, 'the training set', name)
        if own is None and names is not None:
            say_unknown(name)
        if order is not None and not getattr(teacher, 'classes_mapped', False):
            teacher.classes_mapped = True
            teacher.register_forward_hook(_Permutation(order))


class _Permutation:
    """Permutes the logits of a teacher's outputs."""

    def __init__(self, order: Tensor) -> None:
        self.order = order

    def __call__(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
        logits = outputs.logits
        if logits is None:
            return outputs
        return replace(outputs, logits=logits[:, self.order.to(logits.device)])


def _names_of(loader: Any) -> tuple[str, ...] | None:
    meta = getattr(loader.dataset, 'metainfo', None) or {}
    return as_names(meta.get('classes'))
