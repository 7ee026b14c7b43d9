"""The hook that refuses a checkpoint that does not fit the classifier that is tested."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import HOOKS

from ipirm_mm.engine.averaging import unwrap
from ipirm_mm.models.utils import load_state, plain_state, unwrapped_state


@HOOKS.register_module()
class CheckWeightsHook(Hook):
    """Lets a test begin only with a checkpoint that has every key of the classifier.

    Fault bridged: MMEngine only warns if keys do not match, and then tests layers with random
    weights. Checkpoints whose keys are under another name (``model``, as timm writes them), begin
    with ``module.`` or have the ``_orig_mod.`` of ``torch.compile`` get MMEngine's names, for the
    hooks that follow, too. ``tools/test.py`` registers the hook.

    Raises:
        UserError: If a key of the classifier is missing or has another shape.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which reads the weights of the checkpoint

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights, before the runner loads them.

        Args:
            runner: The runner of the test.
            checkpoint: Content of the checkpoint, changed in place.
        """
        model: Any = unwrap(runner.model)
        network = model.module if isinstance(model, BaseTTAModel) else model
        if not isinstance(network, BaseClassifier):
            return
        state = checkpoint['state_dict'] = unwrapped_state(plain_state(checkpoint))
        # What only training needs, such as connectors, is not in published weights.
        student = getattr(network, 'student_parts', None)
        children = [name for name, _ in network.named_children()]
        optional = [] if student is None else [name for name in children if name not in student]
        path = str(runner._load_from)
        load_state(network, state, path, prefix='', strict=True, optional=optional)
