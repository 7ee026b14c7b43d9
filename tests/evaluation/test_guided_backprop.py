"""Guided backpropagation against gradients by hand, and that it leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import GuidedReLUs, filter_maps, guided_backpropagation


class Functional(nn.Module):
    """Rectifies by a function of the class, in one of many ways."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Statement(nn.Module):
    """Rectifies in place, and does not use what the function returns."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        x = 1 * x
        self.function(x)
        return x


RECTIFIERS = dict(
    module=nn.ReLU,
    in_place=lambda: nn.ReLU(inplace=True),
    relu6=lambda: nn.ReLU6(inplace=True),
    functional=lambda: Functional(F.relu),
    functional_in_place=lambda: Functional(lambda x: F.relu(x, True)),
    keyword=lambda: Functional(lambda x: F.relu(inplace=False, input=x)),
    torch=lambda: Functional(torch.relu),
    method=lambda: Functional(lambda x: x.relu()),
    method_in_place=lambda: Statement(lambda x: x.relu_()),
    ignored=lambda: Statement(nn.ReLU(inplace=True)),
    ignored_function=lambda: Statement(lambda x: F.relu(x, inplace=True)),
    ignored_torch=lambda: Statement(torch.relu_),
)


def by_hand(images, first, second, third, filter_number, largest=float('inf')):
    """Guided gradient of two rectified 1x1 convolutions and a third, pixel by pixel in loops."""
    gradient = torch.zeros_like(images)
    for n in range(len(images)):
        best = None
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                a = first @ images[n, :, y, x]
                b = second @ a.clamp(0, largest)
                c = third @ b.clamp(0, largest)
                if best is None or c[filter_number] > best[0]:
                    best = c[filter_number], y, x, a, b
        value, y, x, a, b = best
        if value <= 0:
            continue
        # From the filter back: weights, then what is positive and passes where b is active.
        back = [
            max(0.0, float(third[filter_number, k])) if 0 < b[k] < largest else 0.0
            for k in range(len(b))
        ]
        back = [sum(back[k] * float(second[k, j]) for k in range(len(b))) for j in range(len(a))]
        back = [max(0.0, back[j]) if 0 < a[j] < largest else 0.0 for j in range(len(a))]
        for i in range(images.shape[1]):
            gradient[n, i, y, x] = sum(back[j] * float(first[j, i]) for j in range(len(a)))
    return gradient


def network(rectifiers, seed=0):
    """Two rectified convolutions and a third, 1x1 and without bias, in float64."""
    torch.manual_seed(seed)
    convs = [nn.Conv2d(a, b, 1, bias=False).double() for a, b in ((3, 7), (7, 6), (6, 4))]
    first, second = rectifiers
    return nn.Sequential(convs[0], first, convs[1], second, convs[2])


def weights(net):
    return [net[n].weight.detach()[:, :, 0, 0] for n in (0, 2, 4)]


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('kind', RECTIFIERS)
def test_against_loops(kind, shared):
    rectifier = RECTIFIERS[kind]()
    net = network((rectifier, rectifier if shared else RECTIFIERS[kind]()))
    scale = 8 if kind == 'relu6' else 1  # so that some values are above 6
    images = scale * torch.randn(5, 3, 4, 3, dtype=torch.float64)
    for number in range(4):
        largest = 6.0 if kind == 'relu6' else float('inf')
        expected = by_hand(images, *weights(net), number, largest)
        found = guided_backpropagation(net, images, net[4], torch.full((5,), number))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert expected.abs().sum() > 0
    plain = images.clone().requires_grad_()
    net.eval()(plain)[:, 0].flatten(1).max(1).values.sum().backward()
    first = guided_backpropagation(net, images, net[4], torch.zeros(5, dtype=torch.long))
    assert not torch.allclose(plain.grad, first)  # the test would notice a plain gradient


def test_each_image_has_its_own_filter():
    net = network((nn.ReLU(), nn.ReLU()))
    images = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    filters = torch.tensor([3, 0, 2, 1])
    together = guided_backpropagation(net, images, net[4], filters)
    for n in range(4):
        alone = guided_backpropagation(net, images[n : n + 1], net[4], filters[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('place', [1, 3])
def test_layer_whose_output_is_rectified_in_place(place):
    """The layer before an in-place ReLU, and the ReLU itself, have the same positive part."""
    net = network((nn.ReLU(inplace=True), nn.ReLU(inplace=True)))
    images = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    before = filter_maps(net, images.clone(), {'a': net[place - 1]})['a']
    after = filter_maps(net, images.clone(), {'a': net[place]})['a']
    torch.testing.assert_close(before, after)
    assert (before == 0).any() and (before > 0).any()
    filters = torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(
        guided_backpropagation(net, images, net[place - 1], filters),
        guided_backpropagation(net, images, net[place], filters),
    )


def test_nothing_is_left():
    net = network((nn.ReLU(inplace=True), nn.ReLU()))
    net.add_module('norm', nn.BatchNorm2d(4).double())
    net.train()
    net[2].eval()  # a frozen part
    net[0].weight.requires_grad_(False)
    net[4].weight.grad = torch.ones_like(net[4].weight)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    images = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    kept = images.clone()
    with torch.no_grad():
        guided_backpropagation(net, images, net[4], torch.zeros(3, dtype=torch.long))
    assert [module.training for module in net.modules()] == [
        module is not net[2] for module in net.modules()
    ]
    assert not net[0].weight.requires_grad and net[2].weight.requires_grad
    assert net[2].weight.grad is None and bool((net[4].weight.grad == 1).all())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert torch.equal(images, kept) and not images.requires_grad and images.grad is None
    for module in net.modules():
        assert not module._forward_hooks and not module._backward_hooks
    # ReLUs are plain again.
    x = torch.ones(2, requires_grad=True)
    (-F.relu(x)).sum().backward()
    assert torch.equal(x.grad, -torch.ones(2))


def test_nothing_is_left_after_an_error():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError('broken')

    net = nn.Sequential(network((nn.ReLU(), nn.ReLU())), Broken()).train()
    images = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match='broken'):
        guided_backpropagation(net, images, net[0][4], torch.tensor([0]))
    assert all(module.training and not module._forward_hooks for module in net.modules())
    x = torch.ones(2, requires_grad=True)
    (-F.relu(x)).sum().backward()
    assert torch.equal(x.grad, -torch.ones(2))


def test_other_activations_keep_their_gradient():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, dtype=torch.float64)
    functions = (F.gelu, torch.sigmoid, F.hardtanh, lambda x: F.leaky_relu(x, 0.1))
    for function in functions:
        plain = torch.autograd.grad((weight * function(x)).sum(), x)[0]
        with GuidedReLUs() as relus:
            guided = torch.autograd.grad((weight * function(x)).sum(), x)[0]
        assert torch.equal(plain, guided) and not relus.count


def test_mistakes_are_named():
    images = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    net = network((nn.GELU(), nn.GELU()))
    with pytest.raises(UserError, match='Sequential has no ReLU'):
        guided_backpropagation(net, images, net[4], torch.tensor([0]))
    with pytest.raises(UserError, match='the layer x is not used'):
        filter_maps(net, images, {'x': nn.ReLU()})
    net.add_module('flat', nn.Flatten())
    with pytest.raises(UserError, match=r'the layer x gives no feature map but \(1, 16\)'):
        filter_maps(net, images, {'x': net[5]})
