"""Widths and MACs by hand; a graph is plain data that travels."""

import pickle

import torch
from torch.nn import functional

from runtime_pruning.network.graph import FxCall, Graph, Ref, TrainingOf, Unit, Value, Width

PLANS_BL = torch.tensor([[2, 8, 4], [6, 4, 4]])


def conv(name: str, source: Value, width: Width, site: int | None = None) -> Unit:
    return Unit(
        kind="convolution",
        head=FxCall(name, "module", name),
        inputs=(source,),
        output=Value(name, width),
        site=site,
        mac_scale=9,
        mac_per_input=True,
    )


def test_a_width_is_the_largest_that_its_sites_choose() -> None:
    assert Width(8, frozenset({0, 1})).resolve(PLANS_BL).tolist() == [8, 6]
    assert Width(8).resolve(PLANS_BL).tolist() == [8, 8]
    assert not Width(8).pruned


def test_macs_grow_with_both_widths() -> None:
    source = Value("before", Width(8, frozenset({0})))
    unit = conv("here", source, Width(8, frozenset({1})), site=1)
    assert unit.macs(PLANS_BL).tolist() == [9 * 2 * 8, 9 * 6 * 4]
    assert unit.conditional
    assert unit.executes_macs


def test_macs_of_what_is_not_known_are_the_same_under_any_plan() -> None:
    head = FxCall("odd", "function", torch.sort)
    value = Value("odd", Width(8))
    unit = Unit(kind="opaque", head=head, inputs=(value,), output=value, fixed_macs=77)
    assert unit.macs(PLANS_BL).tolist() == [77, 77]
    assert not unit.conditional


def test_a_stage_ends_before_each_decision() -> None:
    images, first = Value("images", Width(3)), Value("first", Width(8))
    units = (
        conv("first", images, Width(8)),
        conv("one", first, Width(8, frozenset({0})), site=0),
        conv("two", first, Width(8, frozenset({1})), site=1),
        conv("last", first, Width(10)),
    )
    graph = Graph(units, "images", "last", 10, streams=True)
    names = [[unit.output.name for unit in stage] for stage in graph.stages]
    assert names == [["first"], ["one"], ["two", "last"]]


def test_nothing_is_in_training_mode_at_inference() -> None:
    args = (0.5, (TrainingOf("drop"), Ref("x")))
    call = FxCall("drop", "function", functional.dropout, args, {"training": TrainingOf("")})
    settled = call.at_inference()
    assert settled.args == (0.5, (False, Ref("x")))
    assert settled.kwargs == {"training": False}


def test_functions_without_a_name_travel_by_where_they_are_found() -> None:
    for function in (functional.max_pool2d, functional.relu, torch.add):
        call = FxCall("here", "function", function)
        assert pickle.loads(pickle.dumps(call)) == call
