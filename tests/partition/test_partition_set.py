"""The set of partitions as part of a model's state."""

from __future__ import annotations

import copy

import pytest
import torch

from ipirm_mm.errors import UserError
from ipirm_mm.partition import PartitionSet


def filled(num_subsets=3, images=7, capacity=4, count=2):
    partitions = PartitionSet(num_subsets)
    partitions.allocate(capacity, images)
    for number in range(count):
        partitions.add((torch.arange(images) + number) % num_subsets)
    return partitions


def test_looks_up_the_images_of_a_batch():
    partitions = filled()
    index = torch.tensor([5, 0, 6])
    assert partitions.of(index).tolist() == [[2, 0, 0], [0, 1, 1]]
    assert (len(partitions), partitions.capacity, partitions.num_images) == (2, 4, 7)
    assert partitions.assignments.dtype == torch.uint8


@pytest.mark.parametrize('capacity', [0, 2, 4, 9])
def test_round_trip_into_a_set_of_any_capacity(capacity):
    source, target = filled(), PartitionSet(3)
    if capacity:
        target.allocate(capacity, 7)
    target.load_state_dict(source.state_dict())
    assert len(target) == 2 and torch.equal(target.found, source.found)
    assert target.capacity >= capacity
    clone = copy.deepcopy(target)
    assert len(clone) == 2 and torch.equal(clone.found, source.found)


def test_loading_an_empty_set_forgets_what_was_there():
    target = filled()
    target.load_state_dict(PartitionSet(3).state_dict())
    assert len(target) == 0 and target.num_images == 7
    target.add(torch.zeros(7).long())
    assert len(target) == 1 and int(target.count) == 1


def test_another_data_set_is_refused():
    target = PartitionSet(3)
    target.allocate(4, 8)
    with pytest.raises(UserError, match='divide 7 images, but the training set has 8'):
        target.load_state_dict(filled().state_dict())
    with pytest.raises(UserError, match='divide 7 images, but the training set has 9'):
        filled().allocate(4, 9)


def test_another_number_of_subsets_is_refused():
    with pytest.raises(UserError, match='into 3 subsets, but the config asks for num_subsets=2'):
        PartitionSet(2).load_state_dict(filled().state_dict())


def test_damaged_partitions_are_refused():
    state = filled().state_dict()
    state['assignments'] = torch.full_like(state['assignments'], 200)
    with pytest.raises(UserError, match='damaged'):
        PartitionSet(3).load_state_dict(state)


@pytest.mark.parametrize(
    'assignment,message',
    [
        (torch.zeros(6).long(), r'must be \(7,\)'),
        (torch.full((7,), 3), r'must be in \[0, 3\), but has values 3 to 3'),
        (torch.full((7,), -1), 'but has values -1 to -1'),
    ],
)
def test_bad_assignment(assignment, message):
    with pytest.raises(ValueError, match=message):
        filled().add(assignment)


def test_a_partition_is_removed_for_a_new_one():
    partitions = PartitionSet(4)
    partitions.allocate(3, 2)
    for value in range(3):
        partitions.add(torch.tensor([value, 3]))
    partitions.add(torch.tensor([3, 3]), removed_index=1)
    assert partitions.found[:, 0].tolist() == [0, 2, 3] and int(partitions.count) == 3
    partitions.add(torch.tensor([1, 0]), removed_index=0)
    assert partitions.found[:, 0].tolist() == [2, 3, 1]
    with pytest.raises(ValueError, match='no partition 3 to remove: there are 3'):
        partitions.add(torch.tensor([1, 0]), removed_index=3)


def test_full_set():
    with pytest.raises(ValueError, match='capacity is 2'):
        filled(capacity=2).add(torch.zeros(7).long())
