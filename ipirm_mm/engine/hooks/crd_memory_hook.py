"""Give CRD the training images that its memories are for."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS

from ipirm_mm.datasets import base_dataset
from ipirm_mm.errors import UserError
from ipirm_mm.models.distillation import CRD


@HOOKS.register_module()
class CRDMemoryHook(Hook):
    """Make CRD's memories before training, one row per training image.

    .. code-block:: python

        custom_hooks = [dict(type='CRDMemoryHook')]

    Raises:
        UserError: Before training, if the model has no ``CRD``, an image has no label or several
            labels, or ``sample_idx`` may stand for several images.
    """

    # Before EMAHook (NORMAL) copies the model.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Make the memories."""
        # Not `runner.train_loop`: that would build the loop, with its data set, in a test too.
        if not isinstance(runner._train_loop, BaseLoop):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        losses = [module for module in model.modules() if isinstance(module, CRD)]
        if not losses:
            raise UserError(
                'CRDMemoryHook is for CRD, which is not in model.distill_losses: remove the hook'
            )
        dataset = base_dataset(runner.train_dataloader.dataset)
        labels = [dataset.get_data_info(index).get('gt_label') for index in range(len(dataset))]
        if not all(isinstance(label, int) for label in labels):
            raise UserError(
                'CRD needs one class per training image, because negatives are images of other '
                'classes, but an image of the training set has no class or several: use one label '
                'per image, or another distillation loss'
            )
        for loss in losses:
            loss.allocate(torch.tensor(labels))
