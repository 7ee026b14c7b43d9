"""Give CRD the training images that its memories are for."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ipirm_mm.datasets import UniqueImages, one_class, why_not_one_class
from ipirm_mm.errors import UserError
from ipirm_mm.models.distillation import CRD

from ..averaging import refresh_averaged, sync_averaged, unwrap
from ..passes import check_steps, is_training, prepare_images


@HOOKS.register_module()
class CRDMemoryHook(Hook):
    """Make CRD's memories before training, one row per training image.

    .. code-block:: python

        custom_hooks = [dict(type='CRDMemoryHook')]

    Raises:
        UserError: Before training, if the model has no ``CRD``, an image has no label or several
            labels, ``sample_idx`` may stand for several images, or no step would be made.
    """

    # Before EMAHook (NORMAL) copies the model.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Make the memories."""
        if not is_training(runner):
            return
        losses = [module for module in unwrap(runner.model).modules() if isinstance(module, CRD)]
        if not losses:
            raise UserError(
                'CRDMemoryHook is for CRD, which is not in model.distill_losses: remove the hook'
            )
        _check_recipes(runner)
        prepare_images(runner).check_unique()
        images = UniqueImages(runner.train_dataloader.dataset)
        labels = []
        for number in range(len(images)):
            dataset, index = images.locate(number)
            if not hasattr(dataset, 'get_data_info'):
                raise UserError(
                    f'CRD needs the class of each training image, but {type(dataset).__name__} '
                    'has no get_data_info, which tells it: use a data set of MMEngine'
                )
            labels.append(dataset.get_data_info(index).get('gt_label'))
        classes = [one_class(label) for label in labels]
        known = [label for label in classes if label is not None]
        if len(known) < len(classes):
            raise UserError(
                'CRD needs one class per training image, because negatives are images of other '
                f'classes, but the images of train_dataloader {why_not_one_class(labels)}: use '
                'one label per image, or another distillation loss'
            )
        for loss in losses:
            loss.allocate(torch.tensor(known))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Start with new memories where a checkpoint is not resumed but loaded (``load_from``)."""
        if not is_training(runner) or runner._resume:
            return
        state = checkpoint.get('state_dict', checkpoint)
        dropped = 0
        for name, module in unwrap(runner.model).named_modules():
            if isinstance(module, CRD):
                dropped += len(state.get(f'{name}.labels', ()))
                for key, buffer in module.named_buffers():
                    if f'{name}.{key}' in state:
                        state[f'{name}.{key}'] = buffer.clone()
        if dropped:
            runner.logger.info(
                f'load_from: the memories of CRD in the checkpoint, of {dropped} images, are '
                'dropped, because a new schedule begins (--resume continues the old one)'
            )

    def before_train(self, runner: Runner) -> None:
        """Check that there is something to train."""
        check_steps(runner)
        refresh_averaged(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the memories out of averages of the model."""
        sync_averaged(runner, CRD)


def _check_recipes(runner: Runner) -> None:
    """Check that no later epoch mixes images, before any is trained."""
    for hook in runner.hooks:
        for epoch, recipe in getattr(hook, 'schedule', {}).items():
            if recipe.get('batch_augments') is not None:
                raise UserError(
                    f'CRD compares whole images, but SwitchRecipeHook mixes them from epoch '
                    f'{epoch} on (batch_augments): remove one of the two'
                )
