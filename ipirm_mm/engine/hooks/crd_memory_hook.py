"""Tells CRD which training images there are."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS

from ipirm_mm.datasets import base_dataset
from ipirm_mm.errors import UserError
from ipirm_mm.models.distillers import CRD


@HOOKS.register_module()
class CRDMemoryHook(Hook):
    """Make CRD's memories before training, a row for each training image.

    .. code-block:: python

        custom_hooks = [dict(type='CRDMemoryHook')]

    Raises:
        UserError: Before training, if the model has no ``CRD``, or images have no labels.
    """

    # Before EMAHook (NORMAL) copies the model.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Make the memories."""
        # Not `runner.train_loop`, which would build it, with its data set, in a test as well.
        if not isinstance(runner._train_loop, BaseLoop):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        losses = [module for module in model.modules() if isinstance(module, CRD)]
        if not losses:
            raise UserError(
                'CRDMemoryHook serves CRD, which is not among distill_losses: remove the hook'
            )
        dataset = base_dataset(runner.train_dataloader.dataset)
        labels = [dataset.get_data_info(index).get('gt_label') for index in range(len(dataset))]
        if not all(isinstance(label, int) for label in labels):
            raise UserError(
                'CRD takes images of other classes as negatives, but an image of the training set '
                'has no class, or several'
            )
        for loss in losses:
            loss.allocate(torch.tensor(labels))
