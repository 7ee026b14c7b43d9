"""For tests: a hook that writes what each rank of a run has seen, and what it holds at the end."""

import zlib

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import loops
from mmpretrain.registry import HOOKS

# MMEngine's loop of iterations sleeps for two seconds when the data begin again.
loops.time.sleep = lambda seconds: None


@HOOKS.register_module()
class WatchRanksHook(Hook):
    """Writes ``rankN_ITERATION.pth`` when a run ends, ITERATION being the one it began with."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.start = runner.iter
        self.losses, self.seen = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({k: float(v) for k, v in outputs.items() if 'loss' in k})
        images = data_batch['inputs']
        images = torch.stack(images, 1) if isinstance(images, (list, tuple)) else images
        self.seen.append(
            [
                (sample.sample_idx, sample.img_path, zlib.crc32(image.numpy().tobytes()))
                for image, sample in zip(images, data_batch['data_samples'])
            ]
        )

    def after_train(self, runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        torch.save(
            dict(state=model.state_dict(), losses=self.losses, seen=self.seen),
            f'{runner.work_dir}/rank{get_rank()}_{self.start}.pth',
        )
