"""The hook that compares the names of the classes of the data sets."""

from __future__ import annotations

from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import HOOKS

from ipirm_mm.evaluation import PredictionEvaluator
from ipirm_mm.models.utils import class_order, dataset_class_names


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Lets the classes of the validation split be those of the training set.

    A validation split that has the same classes in another order is mapped; one of other classes
    is refused. Our tools register the hook. Teachers are matched by
    :class:`~ipirm_mm.models.DistillingClassifier` itself.

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
        names = dataset_class_names(runner.train_dataloader.dataset)
        loop: Any = runner._val_loop
        if isinstance(loop, BaseLoop) and type(getattr(loop, 'evaluator', None)) is Evaluator:
            own = dataset_class_names(loop.dataloader.dataset)
            order = class_order(own, names, 'the validation split', 'the training set')
            if order is not None:
                meta = loop.evaluator.dataset_meta
                loop.evaluator = PredictionEvaluator(loop.evaluator.metrics, order)
                loop.evaluator.dataset_meta = meta
