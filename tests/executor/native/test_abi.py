"""A library whose structures lie otherwise is refused, by the name of what differs."""

import ctypes

import pytest

from runtime_pruning.executor.native import abi, build

Row = tuple[str, int, int]


def agreeing() -> list[Row]:
    """Return what a library that agrees reports, worked out by hand for two structures."""
    rows: list[Row] = [(name, *row) for name, row in abi._rows().items()]
    assert ("LayerSlice", 0, 48) in rows
    assert ("LayerSlice.block", 40, 8) in rows
    assert [row for row in rows if row[0].startswith("Call")] == [
        ("Call", 0, 112),
        ("Call.g", 0, 80),
        ("Call.ld_in", 80, 8),
        ("Call.ld_out", 88, 8),
        ("Call.low", 96, 4),
        ("Call.high", 100, 4),
        ("Call.add", 104, 8),
    ]
    assert ("Opcode.kScalePlanes", 8, 0) in rows
    return rows


def test_what_agrees_is_taken() -> None:
    abi.check(agreeing())


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("Call.low", (100, 4)),
        ("Decision.lstm", (96, 4)),
        ("WidthKey", (0, 40)),
        ("Opcode.kDecide", (7, 0)),
        ("Instruction.site", None),
        ("Instruction.fresh", (72, 8)),
    ],
)
def test_what_differs_is_named(name: str, row: tuple[int, int] | None) -> None:
    rows = [found for found in agreeing() if found[0] != name]
    rows += [] if row is None else [(name, *row)]
    with pytest.raises(abi.AbiMismatchError, match=rf"but {name} is"):
        abi.check(rows)


def test_every_structure_of_the_header_is_compared() -> None:
    header = (build.SOURCE.parent / "abi.h").read_text()
    named = [line.split()[1] for line in header.splitlines() if line.startswith("struct ")]
    assert named == [*[structure.__name__ for structure in abi.STRUCTURES], "AbiRow"]


def test_a_table_of_slices_is_one_block() -> None:
    rows = abi.slices(abi.LayerSlice(1, 2, 3, count, 5, 6) for count in (7, 8))
    values = (ctypes.c_int64 * 12).from_address(ctypes.addressof(rows))
    assert list(values) == [1, 2, 3, 7, 5, 6, 1, 2, 3, 8, 5, 6]
