"""What is read of the assembler's report and listing."""

import pytest

from ndp_rt.bench.assembly import Usage, count_kinds, find_inner_loop, read_usage

LOG = """ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 32 bytes smem
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 122 registers, used 1 barriers, 37632 bytes smem, 400 bytes cmem[0]
"""
LISTING = """
\t.section\t.text.first,"ax",@progbits
.L_x_0:
        /*0000*/                   HMMA.16816.F32 R4, R8, R10, R4 ;
        /*0010*/               @P0 BRA `(.L_x_0) ;
\t.section\t.text.second,"ax",@progbits
.L_x_1:
        /*0000*/                   LDG.E R2, desc[UR4][R2.64] ;
.L_x_2:
        /*0010*/                   LDSM.16.M88.4 R8, [R3] ;
        /*0020*/              @!P1 LD.E R9, [R4] ;
        /*0030*/                   HMMA.16816.F32 R4, R8, R10, R4 ;
        /*0040*/               @P0 BRA `(.L_x_2) ;
        /*0050*/               @P0 BRA `(.L_x_1) ;
        /*0060*/                   BRA `(.L_x_3) ;
.L_x_3:
        /*0070*/                   EXIT ;
"""


def test_the_usage_of_a_kernel_is_read() -> None:
    assert read_usage(LOG, "first") == Usage(registers=40, spill_bytes=0, shared_bytes=32)
    assert read_usage(LOG, "second") == Usage(registers=122, spill_bytes=16, shared_bytes=37632)


@pytest.mark.parametrize(
    ("registers", "shared_bytes", "architecture", "count"),
    [(122, 37632, 90, 4), (162, 37632, 90, 3), (122, 37632, 86, 2), (122, 37632, 75, 1), (255, 0, 120, 2)],
)
def test_blocks_are_limited_by_registers_and_by_shared_memory(
    registers: int, shared_bytes: int, architecture: int, count: int
) -> None:
    usage = Usage(registers=registers, spill_bytes=0, shared_bytes=shared_bytes)
    assert usage.count_blocks(architecture) == count


def test_the_shortest_loop_with_products_is_found() -> None:
    loop = find_inner_loop(LISTING, "second")
    assert len(loop) == 4 and loop[0].startswith("LDSM")
    assert count_kinds(loop) == {"LDSM": 1, "LD": 1, "HMMA": 1, "BRA": 1}
    assert len(find_inner_loop(LISTING, "first")) == 2
    assert find_inner_loop(LISTING, "third") == []
