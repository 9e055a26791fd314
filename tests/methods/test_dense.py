"""The dense control is the network from before any-width training, and reported once."""

from controls import reported, task


def test_an_interrupted_control_reports_the_rest() -> None:
    assert reported("fixed-width", task(points_done=3)) == [([4, 4, 4], False)]
    assert reported("dense", task(points_done=1)) == []


def test_dense_reports_the_network_from_before_any_width_training() -> None:
    assert reported("dense", task()) == [([4, 4, 4], True)]
