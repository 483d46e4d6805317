"""What is found of the CPU and of GPUs, from the text that systems give."""

from ndp_rt.devices.machine import find_cpu, find_driver_version, find_gpus, parse_cpu_info

TWO_SOCKETS = """processor\t: 0
model name\t: AMD EPYC
cpu family\t: 26
model\t\t: 2
stepping\t: 1
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni

processor\t: 1
physical id\t: 0
core id\t\t: 0

processor\t: 2
physical id\t: 1
core id\t\t: 0
"""


def test_reads_name_cores_and_instruction_sets() -> None:
    cpu = parse_cpu_info(TWO_SOCKETS)
    assert cpu.model_name == "AMD EPYC (26-2-1)"
    assert cpu.physical_core_count == 2
    assert cpu.isa_flags == ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")
    assert cpu.has_bf16


def test_reads_arm_features() -> None:
    cpu = parse_cpu_info("processor : 0\nFeatures : fp asimd bf16\n")
    assert cpu.isa_flags == ("asimd", "bf16") and cpu.has_bf16


def test_describes_a_machine_that_tells_nothing() -> None:
    cpu = parse_cpu_info("")
    assert cpu.model_name and cpu.isa_flags == () and not cpu.has_bf16
    assert cpu.physical_core_count == cpu.logical_core_count >= 1


def test_describes_this_machine() -> None:
    cpu = find_cpu()
    assert 1 <= cpu.usable_core_count <= cpu.logical_core_count
    assert isinstance(find_gpus(), tuple)
    assert find_driver_version() is None or find_driver_version()
