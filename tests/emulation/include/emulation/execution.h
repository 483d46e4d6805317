// The execution model: the threads of a block are fibers on one host thread; blocks run one after another.
//
// A fiber runs until it waits at a barrier or a warp collective, then another goes on: in schedules 0 and 1 one of its
// own warp as long as there is one, in the others the next in turn. So a thread, and in schedules 0 and 1 a whole warp,
// runs far ahead of the others wherever no barrier stops it: what a missing barrier would spoil is spoilt, in one
// schedule or another. What hardware may reorder inside one warp between two shuffles cannot be seen here.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

#include "vector_types.h"

namespace emulation {

constexpr int WARP_LANES = 32, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / WARP_LANES;
constexpr size_t STACK_BYTES = 128 * 1024, PAGE_BYTES = 4096;
constexpr size_t LANE_BYTES = 256;  // what one lane may hand over in one warp collective
constexpr int NO_SITE = -1, MAX_SITES = 256;

// Saves the callee-saved registers of the System V ABI and the stack pointer; kernels leave the control words alone.
extern "C" void ndp_rt_emulation_switch(void **save_stack, void *load_stack);
asm(R"(
.text
.p2align 4
.weak ndp_rt_emulation_switch
.hidden ndp_rt_emulation_switch
.type ndp_rt_emulation_switch,@function
ndp_rt_emulation_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
.size ndp_rt_emulation_switch,.-ndp_rt_emulation_switch
)");

enum class State { RUNNING, AT_WARP, AT_BLOCK, DONE };
enum class Collective { NONE, SYNC, SHUFFLE, VOTE, MATRIX };

struct Fiber {
    void *stack_pointer;
    unsigned char *stack;  // lowest usable byte; a page without access lies below it
    State state;
    unsigned thread, warp_generation, block_generation;
    uint3 index;
};

// Where the lanes of a warp meet. Values are double-buffered: a lane may enter the next meeting before the last one
// has read this one's.
struct Warp {
    unsigned lane_count, arrived_count, generation;
    Collective kind;
    alignas(64) unsigned char values[2][WARP_LANES][LANE_BYTES];
};

struct Block {
    Fiber fibers[MAX_THREADS];
    Warp warps[MAX_WARPS];
    int order[MAX_THREADS];  // the schedule
    int thread_count, done_count, position;
    unsigned barrier_arrived_count, barrier_generation;
    int barrier_site;
    dim3 block_dim, grid_dim;
    uint3 index;
    void *launcher_stack;
    const char *error;
};

// What one launch is asked, and what it tells. The Python side mirrors both.
struct Request {
    unsigned grid[3], block[3];
    uint64_t shared_bytes;
    uint32_t seed;      // of the schedule: 0 is in order of threads, 1 the reverse; see above
    int32_t skip_site;  // the barrier that is left out, or NO_SITE
};
struct Report {
    char error[256];
    uint64_t fault_address;  // of a memory access that failed; 0 when none did
    uint64_t switch_count;
    uint32_t site_lines[MAX_SITES];     // of each barrier that some thread came to, its line; 0 for the others
    const char *site_files[MAX_SITES];  // and its file
};

inline Block *block = nullptr;
inline Fiber *fiber = nullptr;
inline const Request *request = nullptr;
inline Report *report = nullptr;
inline void (*thread_body)() = nullptr;

[[noreturn]] inline void stop_block(const char *error) {
    block->error = error;
    void *dead;
    ndp_rt_emulation_switch(&dead, block->launcher_stack);
    abort();
}

inline bool can_run(const Fiber &candidate) {
    switch (candidate.state) {
    case State::RUNNING: return true;
    case State::AT_WARP: return block->warps[candidate.thread / WARP_LANES].generation != candidate.warp_generation;
    case State::AT_BLOCK: return block->barrier_generation != candidate.block_generation;
    default: return false;
    }
}

// Returns the place in the schedule, `step` places ahead; the schedule is a ring.
inline int find_place(int step) {
    int place = block->position + step;
    return place < block->thread_count ? place : place - block->thread_count;
}

// Returns how far ahead the next fiber that can run lies, of `count` places from `first` on; 0 when there is none.
inline int find_next(int first, int count) {
    for (int step = first; step < first + count; ++step)
        if (can_run(block->fibers[block->order[find_place(step)]])) return step;
    return 0;
}

// Goes on with another fiber that can run; returns when this one's turn comes again.
__attribute__((noinline)) inline void yield() {
    Fiber *self = fiber;
    int step = 0;
    if (request->seed <= 1) {  // a warp's threads lie side by side in these schedules
        int lane_count = block->warps[self->thread / WARP_LANES].lane_count, lane = self->thread % WARP_LANES;
        int behind = request->seed == 0 ? lane : lane_count - 1 - lane;
        step = find_next(1, lane_count - 1 - behind);
        if (step == 0) step = find_next(block->thread_count - behind, behind);
    }
    if (step == 0) step = find_next(1, block->thread_count);
    if (step == 0)
        stop_block("deadlock: some threads wait at a barrier or a warp collective that the others never reach");
    block->position = find_place(step);
    Fiber &next = block->fibers[block->order[block->position]];
    next.state = State::RUNNING;
    if (&next == self) return;
    fiber = &next;
    ++report->switch_count;
    ndp_rt_emulation_switch(&self->stack_pointer, next.stack_pointer);
}

inline bool open_barrier_if_all_came() {
    if (block->barrier_arrived_count + block->done_count != (unsigned)block->thread_count) return false;
    block->barrier_arrived_count = 0;
    ++block->barrier_generation;
    return true;
}

inline void run_fiber() {
    thread_body();
    fiber->state = State::DONE;
    if (++block->done_count == block->thread_count) stop_block(nullptr);
    if (block->barrier_arrived_count) open_barrier_if_all_came();  // threads that have ended count as arrived
    yield();
    abort();
}

inline bool is_left_out(int site, const char *file, int line) {
    if (site >= MAX_SITES) stop_block("the kernel file has more barriers than the emulation can number");
    report->site_lines[site] = line;
    report->site_files[site] = file;
    return site == request->skip_site;
}

inline void wait_for_block(int site, const char *file, int line) {
    if (is_left_out(site, file, line)) return;
    if (block->barrier_arrived_count == 0) block->barrier_site = site;
    if (block->barrier_site != site) stop_block("threads of one block wait at different __syncthreads()");
    fiber->block_generation = block->barrier_generation;
    ++block->barrier_arrived_count;
    if (open_barrier_if_all_came()) return;
    fiber->state = State::AT_BLOCK;
    yield();
}

using LaneValues = unsigned char (*)[LANE_BYTES];

// Meets the other lanes of the warp; returns what each of them brought.
inline LaneValues meet_warp(Collective kind, const void *value, size_t value_bytes) {
    Warp &warp = block->warps[fiber->thread / WARP_LANES];
    unsigned generation = warp.generation;
    if (warp.arrived_count == 0) warp.kind = kind;
    if (warp.kind != kind) stop_block("lanes of one warp meet at different warp collectives");
    LaneValues values = warp.values[generation & 1];
    if (value_bytes) memcpy(values[fiber->thread % WARP_LANES], value, value_bytes);
    if (++warp.arrived_count == warp.lane_count) {
        warp.arrived_count = 0;
        ++warp.generation;
        return values;
    }
    fiber->warp_generation = generation;
    fiber->state = State::AT_WARP;
    yield();
    return values;
}

inline void wait_for_warp(int site, const char *file, int line) {
    if (!is_left_out(site, file, line)) meet_warp(Collective::SYNC, nullptr, 0);
}

inline int get_lane() { return fiber->thread % WARP_LANES; }

inline void make_schedule(int *order, int count, unsigned seed, unsigned block_number) {
    for (int i = 0; i < count; ++i) order[i] = seed == 1 ? count - 1 - i : i;
    if (seed <= 1) return;
    uint64_t state = seed * 0x9E3779B97F4A7C15ull + block_number;
    for (int i = count - 1; i > 0; --i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        int other = (int)((state >> 33) % (i + 1)), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

// A process may hold 65530 mappings, a stack with its page takes two, and every library has fibers of its own: stacks are
// made for as many threads as a block has had.
inline unsigned char *make_stack() {
    void *memory = mmap(nullptr, PAGE_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) { perror("emulation: no memory for stacks"); abort(); }
    mprotect(memory, PAGE_BYTES, PROT_NONE);
    return (unsigned char *)memory + PAGE_BYTES;
}

inline void prepare_block(uint3 index, unsigned block_number) {
    Block *b = block;
    b->block_dim = {request->block[0], request->block[1], request->block[2]};
    b->grid_dim = {request->grid[0], request->grid[1], request->grid[2]};
    b->index = index;
    b->thread_count = (int)(b->block_dim.x * b->block_dim.y * b->block_dim.z);
    b->done_count = b->position = 0;
    b->barrier_arrived_count = b->barrier_generation = 0;
    b->barrier_site = NO_SITE;
    b->error = nullptr;
    for (int w = 0; w * WARP_LANES < b->thread_count; ++w) {
        int rest = b->thread_count - w * WARP_LANES;
        b->warps[w].lane_count = rest < WARP_LANES ? rest : WARP_LANES;
        b->warps[w].arrived_count = b->warps[w].generation = 0;
    }
    make_schedule(b->order, b->thread_count, request->seed, block_number);
    for (int t = 0; t < b->thread_count; ++t) {
        Fiber &f = b->fibers[t];
        if (f.stack == nullptr) f.stack = make_stack();
        f.state = State::RUNNING;
        f.thread = t;
        f.index = {t % b->block_dim.x, t / b->block_dim.x % b->block_dim.y, t / (b->block_dim.x * b->block_dim.y)};
        void **top = (void **)(f.stack + STACK_BYTES - 64);  // 16-byte aligned, as the ABI asks before a call
        *--top = nullptr;
        *--top = (void *)run_fiber;
        for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
        f.stack_pointer = top;
    }
}

inline void run_block(uint3 index, unsigned block_number) {
    prepare_block(index, block_number);
    fiber = &block->fibers[block->order[0]];
    ndp_rt_emulation_switch(&block->launcher_stack, fiber->stack_pointer);
}

}  // namespace emulation

#define threadIdx (::emulation::fiber->index)
#define blockIdx (::emulation::block->index)
#define blockDim (::emulation::block->block_dim)
#define gridDim (::emulation::block->grid_dim)
#define warpSize 32

// Barriers are numbered in the order of the source, so that a test can leave out any of them without compiling again.
#define __syncthreads() ::emulation::wait_for_block(__COUNTER__, __FILE__, __LINE__)
#define __syncwarp(...) ::emulation::wait_for_warp(__COUNTER__, __FILE__, __LINE__)
inline void __threadfence() {}
inline void __threadfence_block() {}
