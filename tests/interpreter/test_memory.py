"""Memory under the interpreter: bounds, alignment, what was never written, and accesses in no order."""

import numpy as np
import pytest

from ndp_rt.errors import DeviceError
from ndp_rt.kernels.load import Kernel
from tests.interpreter.interpreter import InterpretedModule, Interpreter, LaunchError
from tests.interpreter.memory import copy_to_device, make_empty

CODE = """
extern "C" __global__ void touch(float* values, int place) { values[place] = values[place] + 1; }
extern "C" __global__ void write_only(unsigned char* values, int place) { values[place] = 1; }
extern "C" __global__ void write_shared(int place) {
    extern __shared__ float partial[];
    partial[place] = 1;
}
extern "C" __global__ void read_shared(float* out, int writes) {
    __shared__ float held[32];
    if (blockIdx.x < writes) held[threadIdx.x] = 1;
    out[blockIdx.x * 32 + threadIdx.x] = held[threadIdx.x];
}
extern "C" __global__ void read_eight(const float* values, float* out) {
    const float2 pair = *reinterpret_cast<const float2*>(values);
    out[0] = pair.x + pair.y;
}
extern "C" __global__ void race(int* values, int form) {
    __shared__ int held[64];
    const int thread = threadIdx.x;
    if (form == 0) {  // two warps
        held[thread] = thread;
        values[thread] = held[63 - thread];
    } else if (form == 1) {  // a shuffle is no barrier
        held[thread] = thread;
        values[thread] = __shfl_xor_sync(0xffffffffu, held[thread ^ 1], 1);
    } else if (form == 2) {  // a barrier of a warp says nothing to another one
        held[thread] = thread;
        __syncwarp();
        values[thread] = held[63 - thread];
    } else if (form == 3) {
        held[0] = thread;
    } else if (form == 4) {  // written while others still read
        held[thread] = thread;
        __syncthreads();
        const int other = held[thread ^ 1];
        held[thread] = other;
    } else if (form == 5) {  // blocks
        values[thread] = blockIdx.x;
    } else if (form == 6) {
        values[64 + thread + 64 * blockIdx.x] = values[thread + 64 * blockIdx.x];
    } else {  // a plain read beside atomics
        atomicAdd(values, 1);
        values[1 + thread + 64 * blockIdx.x] = values[0];
    }
}
extern "C" __global__ void in_order(int* values, int form) {
    __shared__ int held[64];
    const int thread = threadIdx.x;
    held[thread] = thread;
    if (form == 0) {
        __syncthreads();
        values[thread] = held[63 - thread];
        __syncthreads();
        held[thread ^ 32] = 1;
    } else if (form == 1) {
        __syncwarp();
        const int sum = held[thread] + held[thread ^ 1];
        __syncwarp();
        held[thread] = sum;
        values[thread] = held[thread];
    } else {  // through global memory, within a block
        values[thread + 64 * blockIdx.x] = thread;
        __syncthreads();
        values[(63 - thread) + 64 * blockIdx.x] += 1;
    }
}
"""
RACES = [
    "reads shared memory that no thread wrote",  # the other warp will
    "reads what thread .* wrote, with no barrier",
    "reads (what thread .* wrote, with no barrier|shared memory that no thread wrote)",
    "writes what thread .* wrote, with no barrier",
    "writes what thread .* read, with no barrier",
    "writes what thread .* of block 0 wrote, with no barrier",
    "reads what thread .* of block 0 wrote, with no barrier",
    "reads what (several|thread|threads) .* wrote, with no barrier",
]


@pytest.fixture
def module(interpreter: Interpreter) -> InterpretedModule:
    return interpreter.make_module(code=CODE)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (100, "0 bytes past the end of an array of 400 bytes"),
        (600, "2000 bytes past the end of an array of 400 bytes"),
        (-1000, "4000 bytes before the start of an array of 400 bytes"),
    ],
)
def test_memory_beside_an_array_is_not_touched(module: InterpretedModule, place: int, message: str) -> None:
    values = copy_to_device(np.zeros(100, np.float32))
    with pytest.raises(LaunchError, match=message):
        module.get_function("touch")((1,), (1,), (values, np.int32(place)))
    module.get_function("touch")((1,), (1,), (values, np.int32(99)))  # the process lives, and goes on
    assert values.get()[99] == 1


def test_an_access_ends_with_the_array(module: InterpretedModule) -> None:
    values = make_empty((5,), np.uint8)
    with pytest.raises(
        LaunchError, match=r"kernel.cu:\d+ .*st.global.u8.* 0 bytes past the end of an array of 5 bytes"
    ):
        module.get_function("write_only")((1,), (1,), (values, np.int32(5)))
    floats, out = make_empty((3,), np.float32), make_empty((1,), np.float32)
    with pytest.raises(LaunchError, match="reads 8 bytes outside of every array, across the end"):
        module.get_function("read_eight")((1,), (1,), (floats[2:], out))


def test_what_an_allocator_has_may_be_reached(module: InterpretedModule) -> None:
    own = np.zeros(1, np.uint8)  # no array of the tests' device
    write = module.get_function("write_only")
    with pytest.raises(LaunchError, match="outside of every array"):
        write((1,), (1,), (own.ctypes.data, np.int32(0)))
    write((1,), (1,), (own.ctypes.data, np.int32(0)), allocations=[(own.ctypes.data, 1)])
    assert own[0] == 1


def test_a_load_is_aligned(module: InterpretedModule) -> None:
    values, out = copy_to_device(np.arange(5, dtype=np.float32)), make_empty((1,), np.float32)
    module.get_function("read_eight")((1,), (1,), (values, out))
    assert out.get()[0] == 1
    with pytest.raises(LaunchError, match="an address that is not a multiple of 8"):
        module.get_function("read_eight")((1,), (1,), (values[1:], out))


def test_new_memory_holds_nan(module: InterpretedModule) -> None:
    assert np.isnan(make_empty((3, 5), np.float32).get()).all()


def test_shared_memory_is_written_before_it_is_read(module: InterpretedModule) -> None:
    out = make_empty((64,), np.float32)
    module.get_function("read_shared")((2,), (32,), (out, np.int32(2)))
    assert (out.get() == 1).all()
    with pytest.raises(LaunchError, match="reads shared memory that no thread wrote"):
        module.get_function("read_shared")((2,), (32,), (out, np.int32(1)))  # what the first block wrote is not there


@pytest.mark.parametrize(("form", "message"), list(enumerate(RACES)))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accesses_that_no_barrier_puts_in_order_are_found(
    interpreter: Interpreter, module: InterpretedModule, seed: int, form: int, message: str
) -> None:
    interpreter.seed = seed
    values = copy_to_device(np.zeros(256, np.int32))
    if seed == 0:
        with pytest.raises(LaunchError, match=message):
            module.get_function("race")((2,), (64,), (values, np.int32(form)))
    else:  # another order meets another of the two accesses first
        with pytest.raises(LaunchError, match=r"no barrier between|no thread wrote"):
            module.get_function("race")((2,), (64,), (values, np.int32(form)))


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_accesses_in_order_pass(interpreter: Interpreter, module: InterpretedModule, seed: int, form: int) -> None:
    interpreter.seed = seed
    values, thread = copy_to_device(np.zeros(128, np.int32)), np.arange(64)
    module.get_function("in_order")((2 if form == 2 else 1,), (64,), (values, np.int32(form)))
    assert np.array_equal(values.get()[:64], (thread[::-1], thread + (thread ^ 1), thread + 1)[form])


def test_dynamic_shared_memory_ends_where_the_launch_says(module: InterpretedModule) -> None:
    function = module.get_function("write_shared")
    function((1,), (1,), (np.int32(3),), shared_mem=16)
    with pytest.raises(LaunchError, match="outside of its shared memory, 0 bytes past the end of an array of 16 bytes"):
        function((1,), (1,), (np.int32(4),), shared_mem=16)


def test_more_shared_memory_has_to_be_asked_for(module: InterpretedModule) -> None:
    function = module.get_function("write_shared")
    with pytest.raises(LaunchError, match="set max_dynamic_shared_size_bytes first"):
        function((1,), (1,), (np.int32(0),), shared_mem=49153)
    Kernel("write_shared", function)((1,), (1,), (np.int32(20000),), shared_mem=100000)
    with pytest.raises(DeviceError, match="more dynamic shared memory than the kernel can have"):
        Kernel("write_shared", function)((1,), (1,), (np.int32(0),), shared_mem=228 * 1024)


def test_addresses_of_32_bits_wrap(interpreter: Interpreter) -> None:
    text = """
.visible .entry k(.param .u64 out)
{
.reg .b32 %r<3>;
.reg .b64 %rd<1>;
.shared .align 4 .b8 held[4];
ld.param.u64 %rd0, [out];
mov.u32 %r0, -4;
mov.u32 %r1, 7;
st.shared.u32 [held], %r1;
ld.shared.u32 %r2, [%r0+4];
st.global.u32 [%rd0], %r2;
ret;
}
"""
    out = make_empty((1,), np.int32)
    interpreter.read_text(text).get_function("k")((1,), (1,), (out,))
    assert out.get()[0] == 7
