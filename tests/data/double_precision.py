"""For tests: run a config in double precision, by naming this module in its custom_imports."""

import json
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmpretrain.models.utils import ClsDataPreprocessor, SelfSupDataPreprocessor
from mmpretrain.registry import HOOKS, MODELS

from ipirm_mm.models import BatchedViews, ClsBatchedViews

torch.set_default_dtype(torch.float64)


def _double(data):
    inputs = data['inputs']
    views = [view.double() for view in inputs] if isinstance(inputs, list) else inputs.double()
    return {**data, 'inputs': views}


def _register(name, base):
    """Register a data preprocessor whose images are in double precision."""

    def forward(self, data, training=False):
        return _double(base.forward(self, data, training))

    MODELS.register_module(module=type(name, (base,), dict(forward=forward)))


_register('DoublePreprocessor', SelfSupDataPreprocessor)
_register('DoubleClsPreprocessor', ClsDataPreprocessor)
_register('DoubleBatchedViews', BatchedViews)
_register('DoubleClsBatchedViews', ClsBatchedViews)


@HOOKS.register_module()
class MeanLossHook(Hook):
    """Writes the loss of the batches of all ranks; MMEngine logs the first rank's."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].clone()
        all_reduce(loss, 'mean')
        if is_main_process():
            with open(Path(runner.work_dir) / 'losses.jsonl', 'a') as file:
                file.write(json.dumps(loss.item()) + '\n')


@HOOKS.register_module()
class FirstGradientsHook(Hook):
    """Saves the gradients of the first step, as the optimizer gets them, in ``gradients.pth``."""

    def before_train(self, runner):
        parameters = dict(runner.model.named_parameters())

        def save(*_):
            handle.remove()
            if is_main_process():
                gradients = {k.removeprefix('module.'): p.grad for k, p in parameters.items()}
                torch.save(gradients, Path(runner.work_dir) / 'gradients.pth')

        handle = runner.optim_wrapper.optimizer.register_step_pre_hook(save)
