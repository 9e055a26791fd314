"""An instruction reaches the compiled library field by field."""

from runtime_pruning.executor.commands.instruction import Instruction, Opcode, packed


def test_each_field_has_its_place() -> None:
    own = Instruction(
        *(Opcode.MAX_POOL, 11, 12, (4, 5, 6)),
        call=101,
        widths=102,
        read=3,
        write=4,
        writes=5,
        site=6,
    )
    found = packed(own, (7, 8))
    assert (found.opcode, found.call, found.widths) == (3, 101, 102)
    assert (found.source, found.target) == (7, 8)  # values of a buffer, not slots of a state
    assert (found.read, found.write, found.writes, found.site) == (3, 4, 5, 6)


def test_all_images_have_the_first_width_by_default() -> None:
    found = packed(Instruction(Opcode.COPY, 0, 1), (0, 1))
    assert (found.read, found.write, found.writes) == (-1, -1, 1)
    assert found.call is None  # an address of zero
