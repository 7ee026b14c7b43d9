"""A network small enough to train on a laptop's processor."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from mmpretrain.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SmallConvNet(BaseModule):
    """Strided 3x3 convolutions, each with normalization and ReLU; for the quickstart.

    Args:
        channels: Width of each layer. Defaults to ``(32, 64, 128)``.
        in_channels: Number of image channels. Defaults to 3.
        norm_cfg: Config of the normalization. Defaults to None: group normalization with 8 groups.
            Unlike batch normalization, it does not depend on how a batch is split over processes.
        frozen: Whether the weights stay fixed, in ``eval`` mode. Defaults to False.
        init_cfg: Initialization config of MMEngine. Defaults to None: that of ``ConvModule``,
            which is Kaiming's.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        in_channels: int = 3,
        norm_cfg: dict | None = None,
        frozen: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        norm_cfg = norm_cfg or dict(type='GN', num_groups=8)
        widths = (in_channels, *channels)
        self.layers = Sequential(
            *(
                ConvModule(narrow, wide, 3, stride=2, padding=1, norm_cfg=norm_cfg)
                for narrow, wide in zip(widths, widths[1:])
            )
        )
        # Index of the layer that `forward` gives, by the name that MMPretrain's tools ask for.
        self.out_indices = (len(channels) - 1,)
        self.frozen = frozen
        self.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> SmallConvNet:
        """Set the mode; a frozen network stays in ``eval`` mode.

        Args:
            mode: Whether to train. Defaults to True.

        Returns:
            The network.
        """
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Compute features.

        Args:
            x: Images, ``(B, C, H, W)``.

        Returns:
            A tuple with the last feature map, ``(B, channels[-1], H', W')``; each layer halves
            height and width, rounded up.
        """
        return (self.layers(x),)
