"""k-NN accuracy while a self-supervised model trains."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import build_loader, extract_features, knn_accuracy, labels_as_of
from ipirm_mm.options import check_positive, check_whole

from ..passes import counts_iterations, passes_before


@HOOKS.register_module()
class KNNHook(Hook):
    """Classify a held-out split by the nearest labeled images every few epochs.

    It works with every self-supervised model of MMPretrain, on the pooled backbone feature, over
    all ranks. The accuracy goes to the log and, as ``knn_monitor/top1``, to TensorBoard.

    .. code-block:: python

        custom_hooks = [
            dict(
                type='KNNHook',
                interval=25,
                bank_dataloader=dict(...),  # labeled images that vote
                query_dataloader=dict(...),  # images to classify
            )
        ]

    Args:
        bank_dataloader: Config of the data loader of the labeled images, one view each.
        query_dataloader: Config of the data loader of the images to classify.
        interval: Number of epochs between evaluations; without ``by_epoch``, of iterations. The
            last one is always evaluated. Defaults to 25.
        k: Number of neighbors. Defaults to 200 (code of Wang et al.).
        temperature: Temperature of the votes. Defaults to 0.5 (code of Wang et al.).
        by_epoch: Whether ``interval`` counts epochs; in a loop of iterations, an epoch is a pass
            over the training data. Defaults to None: what the training loop counts.

    Raises:
        UserError: If an option is out of range. When it evaluates, if images have no labels, or
            those to classify have a class that no labeled image has.
    """

    priority = 'LOW'

    def __init__(
        self,
        bank_dataloader: dict[str, Any],
        query_dataloader: dict[str, Any],
        interval: int = 25,
        k: int = 200,
        temperature: float = 0.5,
        by_epoch: bool | None = None,
    ) -> None:
        for name, value in (('interval', interval), ('k', k)):
            check_whole(f'KNNHook.{name}', value)
        check_positive('KNNHook.temperature', temperature)
        self.loader_cfgs = (bank_dataloader, query_dataloader)
        self.interval = interval
        self.k = k
        self.temperature = temperature
        self.by_epoch = by_epoch
        self.loaders: list[Any] | None = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate, if an evaluation is due and epochs are counted."""
        if self._counts_epochs(runner):
            last = runner.epoch + 1 == runner.max_epochs
            if self.every_n_epochs(runner, self.interval) or last:
                self._evaluate(runner, f'Epoch {runner.epoch + 1}', runner.epoch + 1)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Evaluate, if an evaluation is due and iterations are counted.

        Args:
            runner: The runner.
            batch_idx: Not used.
            data_batch: Not used.
            outputs: Not used.
        """
        if self._counts_epochs(runner):
            return
        done, last = runner.iter + 1, runner.iter + 1 == runner.max_iters
        if self.by_epoch:
            passes = [
                passes_before(runner, number) // self.interval for number in (done - 1, done)
            ]
            due = passes[0] < passes[1]
        else:
            due = self.every_n_train_iters(runner, self.interval)
        if due or last:
            self._evaluate(runner, f'Iteration {done}', done)

    def _counts_epochs(self, runner: Runner) -> bool:
        return not counts_iterations(runner) and self.by_epoch is not False

    def _evaluate(self, runner: Runner, time: str, step: int) -> None:
        if self.loaders is None:
            self.loaders = [build_loader(cfg, seed=runner.seed) for cfg in self.loader_cfgs]
        bank, query = (
            extract_features(runner.model, loader, description=f'k-NN: {name} features')
            for name, loader in zip(('bank', 'query'), self.loaders)
        )
        for name, data in (('bank', bank), ('query', query)):
            if 'gt_label' not in data:
                raise UserError(
                    f'the images of KNNHook.{name}_dataloader {data["why_no_label"]}, but k-NN '
                    'needs one class per image (gt_label): use a labeled data set, or remove the '
                    'hook'
                )
        accuracy = knn_accuracy(
            bank['features'][0],
            bank['gt_label'],
            query['features'][0],
            labels_as_of(query, bank, 'KNNHook.query_dataloader', 'KNNHook.bank_dataloader'),
            self.k,
            self.temperature,
        )
        runner.logger.info(f'{time}: k-NN accuracy {accuracy:.2f} %')
        runner.message_hub.update_scalar('val/knn_monitor/top1', accuracy)
        runner.visualizer.add_scalar('knn_monitor/top1', accuracy, step=step)
