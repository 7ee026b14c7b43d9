"""What a training step keeps in memory, counted without a device and without data."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Union

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import OPTIMIZERS, init_default_scope
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ipirm_mm.errors import UserError
from ipirm_mm.models.distillation import CRD
from ipirm_mm.models.utils import input_channels

# Transforms that decide the size of an image, and under which option they have it.
SIZES = dict(
    RandomResizedCrop='scale',
    TorchRandomResizedCrop='scale',
    RandomCrop='crop_size',
    CenterCrop='crop_size',
    Resize='scale',
)


# Height and width, or one number for both.
Size = Union[int, tuple[int, int]]


class StepMemory(NamedTuple):
    """Bytes that a training step needs, for one process of a distributed training.

    Attributes:
        weights: Parameters and buffers of the model.
        gradients: Gradients of the trained parameters, and the copy of them that distributed
            training keeps for its communication.
        optimizer: State of the optimizer.
        teachers: Weights of the teachers.
        kept: Activations that the forward pass keeps for the backward pass.
        peak: Most bytes that activations and their gradients take at one time of both passes.
    """

    weights: int
    gradients: int
    optimizer: int
    teachers: int
    kept: int
    peak: int

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the number of images."""
        return self.weights + self.gradients + self.optimizer + self.teachers

    @property
    def total(self) -> int:
        """Most bytes at one time of the step."""
        return self.fixed + self.peak


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make while it is active.

    Tensors that share a storage count once. What a kernel allocates for itself is not seen.

    Args:
        known: Tensors that were there before, which are not counted.

    Attributes:
        now: Bytes of the tensors that live now.
        peak: Most bytes at one time so far.
    """

    def __init__(self, known: Any = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._add, made)
        return made

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        return tensor

    def _remove(self, number: int, size: int) -> None:
        self._storages.discard(number)
        self.now -= size


class ReadsZero(TorchDispatchMode):
    """Lets code read a number from a tensor without data, such as the largest label: it is 0."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or read a number."""
        if func is not torch.ops.aten._local_scalar_dense.default:
            return func(*args, **(kwargs or {}))
        if args[0].dtype == torch.bool:
            return False
        return 0.0 if args[0].dtype.is_floating_point else 0


class SavedBytes:
    """Counts the bytes of the tensors that autograd saves for the backward pass.

    Tensors that share a storage count once.

    Args:
        known: Tensors that are not counted, such as parameters and buffers.
    """

    def __init__(self, known: Any = ()) -> None:
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._saved: dict[int, Any] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is saved inside this context."""
        with saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield

    def take(self) -> int:
        """Give the bytes counted so far, and hold on to the tensors no longer."""
        size = sum(storage.nbytes() for storage in self._saved.values())
        self._saved.clear()
        return size

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._saved[storage._cdata] = storage
        return tensor


def image_size(config: Any) -> Size | None:
    """Find the size of the images that a config trains on.

    Args:
        config: The config.

    Returns:
        What the last transform that sets a size says; None if none does.
    """
    found = None
    parts = [config.train_dataloader.dataset, config.get('data_preprocessor') or {}]
    parts.append(config.model.get('data_preprocessor') or {})
    for part in parts:
        for step in _walk(part):
            found = step.get(SIZES.get(str(step.get('type')), ''), found)
    return found


def _walk(value: Any) -> Iterator[dict]:
    """All dicts in a nested config, in their order."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk(item)


class StepCounter:
    """Counts the memory of a training step of a config.

    The model is built, and its weights are replaced by tensors without data. ``SyncBN`` is
    replaced by ``BN``, which keeps the same. No checkpoint and no data set is read.

    .. code-block:: python

        counter = StepCounter(config)
        counter.count(32, image_size(config), half=True).total

    Args:
        config: The config.
        images: Number of training images, which the memories of CRD depend on. Defaults to
            50,000, as in VIPriors.
    """

    def __init__(self, config: Any, images: int = 50_000) -> None:
        init_default_scope(config.get('default_scope', 'mmpretrain'))
        options = copy.deepcopy(config.model)
        if config.get('data_preprocessor') is not None:  # as MMEngine's runner does
            options.setdefault('data_preprocessor', config.data_preprocessor)
        self.model = revert_sync_batchnorm(MODELS.build(options))
        self.teachers = list(getattr(self.model, 'beside', ()))
        for frozen in self.teachers:
            frozen.loaded = True
        for loss in getattr(self.model, 'distill_losses', ()):
            if isinstance(loss, CRD):
                loss.allocate(torch.arange(images) % max(2, self.model.head.num_classes))
                loss._has_constants = True  # the first step would compute them
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        for network in (self.model, *self.teachers):
            _remove_data(network, self._mode)
        self._optimizer = dict((config.get('optim_wrapper') or {}).get('optimizer') or {})

    def stage_names(self) -> list[str]:
        """Name the stages of the backbone, for the config's ``activation_checkpointing``."""
        backbone = self.model.backbone
        names = getattr(backbone, 'res_layers', None)  # ResNet and its relatives
        for name in () if names else ('layers', 'stages', 'blocks'):
            if isinstance(getattr(backbone, name, None), (nn.Sequential, nn.ModuleList)):
                names = [f'{name}.{number}' for number in range(len(getattr(backbone, name)))]
        return [f'backbone.{name}' for name in names or ()]

    def recompute(self, names: list[str]) -> None:
        """Let modules recompute their activations from now on.

        Args:
            names: Names of the modules, as in the config's ``activation_checkpointing``.

        Raises:
            UserError: If the model has no such module.
        """
        known = dict(self.model.named_modules())
        for name in names:
            if name not in known:
                raise UserError(
                    f'activation_checkpointing has {name}, which the model does not have: name '
                    f'modules of it, such as {", ".join(self.stage_names()) or "backbone"}'
                )
        turn_on_activation_checkpointing(self.model, names)

    def count(self, batch_size: int, size: Size, half: bool = False) -> StepMemory:
        """Count a step: the losses of a batch and their backward pass.

        Args:
            batch_size: Images per process; self-supervised algorithms see two views of each.
            size: Height and width of the images, or one number.
            half: Whether mixed precision is on: 16 bits, bfloat16 or float16. Defaults to False.

        Returns:
            The bytes.
        """
        self.model.train()
        known = [t for network in (self.model, *self.teachers) for t in _tensors(network)]
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        samples = [DataSample().set_gt_label(0) for _ in range(batch_size)]
        for number, sample in enumerate(samples):
            sample.set_field(number, 'sample_idx', field_type='metainfo')
        with self._mode:
            for weight in trained:
                # There from the start, as they are while gradients are accumulated.
                weight.grad = torch.zeros_like(weight)
                known.append(weight.grad)
            saved, live = SavedBytes(known), LiveBytes(known)
            # The device chooses the operations in 16 bits. Tensors without data are on the CPU
            # here; on the "meta" device, all operations would stay in 32 bits.
            autocast = torch.autocast('cpu', torch.bfloat16) if half else nullcontext()
            with ReadsZero(), live:
                inputs = self._images(batch_size, size)
                with saved.counting(), autocast:
                    losses = self.model.loss(inputs, samples)
                    total, _ = self.model.parse_losses(losses)
                kept = saved.take()
                total.backward()
        gradients = _bytes(trained)
        return StepMemory(
            weights=_bytes(_tensors(self.model)),
            gradients=2 * gradients,
            optimizer=int(gradients * states_per_weight(self._optimizer)),
            teachers=sum(_bytes(_tensors(frozen)) for frozen in self.teachers),
            kept=kept,
            peak=live.peak,
        )

    def count_prediction(self, batch_size: int, size: Size) -> StepMemory:
        """Count a pass of evaluation, which keeps nothing.

        Args:
            batch_size: Images per process.
            size: Height and width of the images, or one number.

        Returns:
            The bytes; ``peak`` is that of the pass, what training adds is 0.
        """
        self.model.eval()
        tensors = _tensors(self.model)
        with self._mode, torch.no_grad(), LiveBytes(tensors) as live:
            self.model(self._images(batch_size, size, views=1), mode='tensor')
        return StepMemory(_bytes(tensors), 0, 0, 0, 0, live.peak)

    def _images(self, batch_size: int, size: Size, views: int = 2) -> Any:
        height, width = (size, size) if isinstance(size, int) else size
        shape = (batch_size, input_channels(self.model.backbone) or 3, height, width)
        if views == 1 or not isinstance(self.model, BaseSelfSupervisor):
            return torch.empty(shape)
        return [torch.empty(shape) for _ in range(views)]


def largest_batch(total: Callable[[int], int], limit: int, batch_size: int) -> int:
    """Estimate the largest batch whose step fits.

    It is read off the straight line through the counts at a batch size and at half of it. Only
    the similarities of contrastive losses, which are small, grow by the square.

    Args:
        total: Gives the bytes of a step for a batch size.
        limit: Bytes that there are.
        batch_size: A batch size, at least 4.

    Returns:
        Number of images; 0 if none fits.
    """
    half = batch_size // 2
    slope = (total(batch_size) - total(half)) / (batch_size - half)
    return max(0, int(batch_size + (limit - total(batch_size)) / slope))


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _remove_data(network: nn.Module, mode: FakeTensorMode) -> None:
    """Replace parameters and buffers by tensors that have a shape and no data."""
    new: dict[nn.Parameter, nn.Parameter] = {}
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if weight not in new:
                    fake = mode.from_tensor(weight.detach())
                    new[weight] = nn.Parameter(fake, weight.requires_grad)
                module._parameters[name] = new[weight]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer)


def states_per_weight(options: dict) -> float:
    """Numbers that an optimizer keeps per weight, found in one step on a small matrix.

    Args:
        options: Config of the optimizer.
    """
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.ones(4, 4)
    optimizer = OPTIMIZERS.build(dict(options, params=[weight]))
    optimizer.step()
    state = optimizer.state[weight].values()
    return sum(v.numel() for v in state if isinstance(v, Tensor) and v.dim()) / weight.numel()
