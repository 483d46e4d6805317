// A block of threads while it runs.
#pragma once

#include <random>

#include "memory.h"

namespace ptx {

struct Launch {
    u32 grid[3], block[3];
    u64 shared_bytes;  // dynamic
    u64 max_steps;     // instructions of warps, after which it is taken to run for ever
    u32 seed;
    u32 left_out;  // the barrier that is treated as if it were not there, or NONE
};

struct Block;

struct Warp {
    Block* block;
    u8* registers;
    u32 index, exited;
    u32 epoch;

    struct Group {  // lanes at the same instruction
        u32 pc, lanes;
        enum State : u8 { RUNS, AT_COLLECTIVE, AT_BLOCK_BARRIER } state;
    };
    std::vector<Group> groups;

    template <class T> T* at(u32 place) { return reinterpret_cast<T*>(registers + place); }
    u64 read(u32 place, Width width, int lane);
    void write(u32 place, Width width, int lane, u64 value);
    // Host memory of one lane's access, checked.
    u8* access(const Instruction& instruction, int lane, Use use);
    void add(u32 pc, u32 lanes, Group::State state);
    bool can_run() const;
};

struct Block {
    const Kernel& kernel;
    const Launch& launch;
    const u64* arguments;
    Memory& global;
    Memory shared;
    u64 shared_base;
    std::mt19937& random;
    u8* reached;  // by barrier
    u64 steps = 0;
    u32 number = 0, epoch = 0;
    u32 position[3] = {};
    std::vector<Warp> warps;

    void run();

private:
    void run_group(Warp& warp);
    void release();
};

// Runs all blocks; `reached` gets 1 for each barrier that a thread came to. Throws Fault.
void run(const Kernel& kernel, const Launch& launch, const u64* arguments, const u64* regions, size_t region_count,
         u8* reached);

}  // namespace ptx
