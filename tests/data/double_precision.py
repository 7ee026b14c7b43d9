"""For tests: run a config in double precision, by naming this module in its custom_imports."""

import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS

torch.set_default_dtype(torch.float64)


@MODELS.register_module()
class DoublePreprocessor(SelfSupDataPreprocessor):
    def forward(self, data, training=False):
        data = super().forward(data, training)
        inputs = data['inputs']
        data['inputs'] = (
            [view.double() for view in inputs] if isinstance(inputs, list) else inputs.double()
        )
        return data
