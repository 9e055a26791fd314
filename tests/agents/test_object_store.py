"""What is stored once is copied as the reference that it is."""

import copy

import numpy as np
import pytest
import ray

from runtime_pruning.agents.object_store import ObjectStoreValue

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_a_value_is_stored_once_however_often_it_is_copied() -> None:
    value_N = np.arange(5)
    stored = ObjectStoreValue(value_N)
    assert copy.deepcopy({"data": [stored]})["data"][0] is stored
    assert copy.copy(stored) is stored
    assert stored.get().tolist() == value_N.tolist()
    assert not stored.get().flags.writeable  # a view of the store


def test_a_reference_is_taken_as_what_it_refers_to() -> None:
    stored: ObjectStoreValue[str] = ObjectStoreValue(ray.put("here"))
    assert stored.get() == "here"
