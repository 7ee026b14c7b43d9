"""The hook that compares the names of the classes of the data sets."""

from __future__ import annotations

from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import HOOKS

from ipirm_mm.datasets import one_class
from ipirm_mm.datasets.wrappers import plain_datasets
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import PredictionEvaluator
from ipirm_mm.models.utils import class_order, dataset_class_names


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Lets the classes of the validation split be those of the training set.

    A validation split that has the same classes in another order is mapped; one of other classes
    is refused. So is a training set whose images all have one class, unless its ``indices`` take
    a part of it, as in a short trial. Our tools register the hook. Teachers are matched by
    :class:`~ipirm_mm.models.DistillingClassifier` itself.

    Raises:
        UserError: Before training, if classes differ, with the first difference; or if there is
            one class.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the names of the classes, and map what has another order.

        Args:
            runner: The runner of the training.
        """
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, BaseClassifier):
            return  # self-supervised training has no classes
        check_several_classes(runner.train_dataloader.dataset)
        names = dataset_class_names(runner.train_dataloader.dataset)
        loop: Any = runner._val_loop
        if isinstance(loop, BaseLoop) and type(getattr(loop, 'evaluator', None)) is Evaluator:
            own = dataset_class_names(loop.dataloader.dataset)
            order = class_order(own, names, 'the validation split', 'the training set')
            if order is not None:
                meta = loop.evaluator.dataset_meta
                loop.evaluator = PredictionEvaluator(loop.evaluator.metrics, order)
                loop.evaluator.dataset_meta = meta


def check_several_classes(dataset: Any) -> None:
    """Check that the images to train on are not all of one class.

    Reads labels until a second class is found. Images without one class (several labels, soft
    ones, none) are not checked.

    Args:
        dataset: The training set.

    Raises:
        UserError: If all images have the same class.
    """
    first, total = None, 0
    for part in plain_datasets(dataset):
        if part._indices is not None:
            return
        for index in range(len(part)):
            label = one_class(part.get_data_info(index).get('gt_label'))
            if label is None or first not in (None, label):
                return
            first, total = label, total + 1
    if total > 1:
        raise UserError(
            f'train_dataloader.dataset: all {total:,} images have the class {first}, from which a '
            'classifier learns nothing: give one folder, or one number in the list file, for each '
            'class, and check data_root'
        )
