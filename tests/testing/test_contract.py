"""The contract as clauses: what is left out, what there is no time for, what is not changed."""

import torch

from runtime_pruning import backbones
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.testing.contract import ELSEWHERE, PROMISES, Clause, try_clauses

SHAPE = (1, 8, 8)
WITHOUT_PROCESS = [ELSEWHERE]


def network() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=1)
    return trace(backbone, SHAPE, groups=2, align=4).eval()


def test_a_clause_is_one_line() -> None:
    assert str(Clause("it holds", True)) == "passed   it holds"
    assert str(Clause("it holds", False, "off by 2")) == "FAILED   it holds: off by 2"
    assert str(Clause("it holds", None, "no time")) == "not run  it holds: no time"


def test_clauses_come_in_order_and_those_left_out_do_not() -> None:
    tried = list(try_clauses(network(), without=WITHOUT_PROCESS))
    assert [clause.name for clause in tried] == [name for name in PROMISES if name != ELSEWHERE]
    assert all(clause.passed for clause in tried), tried


def test_the_network_is_not_changed() -> None:
    subject = network().train()
    before = {name: tensor.clone() for name, tensor in subject.state_dict().items()}
    list(try_clauses(subject, without=WITHOUT_PROCESS))
    assert subject.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.state_dict().items())


def test_when_time_is_up_clauses_are_told_as_not_tried() -> None:
    tried = list(try_clauses(network(), seconds=0.0))
    assert len(tried) == len(PROMISES)
    assert {(clause.passed, clause.reason) for clause in tried} == {
        (None, "not tried: 0 seconds had passed")
    }
