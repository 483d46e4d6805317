// Schedules the warps of a block. Lanes of a warp that stand at the same instruction run it together; of several groups
// the one that is furthest behind goes first, so that they meet again, or any where the seed says so.
#include "run.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace ptx {
namespace {

// A seed of 0 runs blocks and warps by number and 1 backwards, a warp as far as it gets; others at random.
constexpr u32 FIRST_RANDOM_SEED = 2;

typedef Warp::Group Group;

std::string describe(const Instruction& instruction)
{
    return instruction.file + ":" + std::to_string(instruction.line) + " (" + instruction.text + ")";
}

// Sets a special register of axis x, y or z, by its name: %tid, %ntid, %ctaid or %nctaid.
void set(Warp& warp, const Special& special, const Launch& launch, const u32* position)
{
    const int axis = special.name.back() - 'x';
    for (u32 lane = 0; lane < LANES; ++lane) {
        const u32 thread = warp.index * LANES + lane, *block = launch.block;
        const u32 places[] = {thread % block[0], thread / block[0] % block[1], thread / block[0] / block[1]};
        warp.at<u32>(special.place)[lane] = special.name[1] == 't'   ? places[axis]
                                            : special.name[1] == 'c' ? position[axis]
                                            : special.name[2] == 't' ? block[axis]
                                                                     : launch.grid[axis];
    }
}

void set_constants(Warp& warp)
{
    for (const Constant& one : warp.block->kernel.constants) {
        if (one.width == PREDICATE) *warp.at<u32>(one.place) = one.value != 0 ? ALL_LANES : 0;
        else
            for (int lane = 0; lane < LANES; ++lane) warp.write(one.place, one.width, lane, one.value);
    }
}

void start(Warp& warp, const Launch& launch, const u32* position, u32 thread_count)
{
    for (const Special& one : warp.block->kernel.specials)
        if (one.name[1] == 'c') set(warp, one, launch, position);  // the others stay for the whole launch
    const u32 first = warp.index * LANES, count = std::min<u32>(LANES, thread_count - first);
    warp.exited = count == LANES ? 0 : ~((1u << count) - 1);
    warp.epoch = 0;
    warp.groups.assign(1, {0, ~warp.exited, Group::RUNS});
}

// The lanes that have to be at a collective before it runs.
u32 find_members(Warp& warp, const Instruction& instruction, u32 active)
{
    if (instruction.flow == Flow::ALIGNED) {
        if (warp.exited != 0) fail("runs in a warp of which lanes have ended");
        return ALL_LANES;
    }
    const u32* masks = warp.at<u32>(instruction.members);
    const u32 mask = masks[std::countr_zero(active)];
    for (u32 left = active; left != 0; left &= left - 1)
        if (masks[std::countr_zero(left)] != mask) fail("lanes give different masks");
    if ((active & ~mask) != 0) fail("a lane is not in its own mask");
    return mask & ~warp.exited;
}

}  // namespace

void Warp::add(u32 pc, u32 lanes, Group::State state)
{
    for (Group& group : groups)
        if (group.pc == pc && group.state == state) {
            group.lanes |= lanes;
            return;
        }
    groups.push_back({pc, lanes, state});
}

bool Warp::can_run() const
{
    return std::any_of(groups.begin(), groups.end(), [](const Group& group) { return group.state == Group::RUNS; });
}

void Block::run_group(Warp& warp)
{
    const bool is_random = launch.seed >= FIRST_RANDOM_SEED;
    std::vector<size_t> running;
    for (size_t i = 0; i < warp.groups.size(); ++i)
        if (warp.groups[i].state == Group::RUNS) running.push_back(i);
    std::sort(running.begin(), running.end(),
              [&](size_t a, size_t b) { return warp.groups[a].pc < warp.groups[b].pc; });
    const size_t turn = is_random && random() % 4 == 0 ? random() % running.size() : 0;
    u32 pc = warp.groups[running[turn]].pc, lanes = warp.groups[running[turn]].lanes;
    u32 limit = turn == 0 && running.size() > 1 ? warp.groups[running[1]].pc : NONE;  // where it meets another group
    warp.groups.erase(warp.groups.begin() + running[turn]);
    const u64 turn_ends = is_random ? steps + 1 + random() % 64 : launch.max_steps;

    for (; lanes != 0; ++steps) {
        const Instruction& instruction = kernel.code[pc];
        if (steps >= launch.max_steps)
            fail(describe(instruction) + " still runs after " + std::to_string(steps) + " steps");
        if (pc >= limit || steps >= turn_ends) {
            warp.add(pc, lanes, Group::RUNS);
            return;
        }
        u32 active = lanes;
        if (instruction.guard != NONE)
            active &= *warp.at<u32>(instruction.guard) ^ (instruction.is_guard_negated ? ALL_LANES : 0);
        if (active == 0) {
            ++pc;
            continue;
        }
        const bool is_barrier = instruction.barrier != NONE;
        if (is_barrier) reached[instruction.barrier] = 1;
        if (is_barrier && instruction.barrier == launch.left_out) {
            ++pc;
            continue;
        }
        try {
            switch (instruction.flow) {
            case Flow::NEXT:
                instruction.execute(warp, instruction, active);
                ++pc;
                break;
            case Flow::BRANCH:
                if (active == lanes) {
                    pc = instruction.target;
                } else {
                    warp.add(instruction.target, active, Group::RUNS);
                    limit = std::min(limit, instruction.target);
                    lanes &= ~active;
                    ++pc;
                }
                break;
            case Flow::RETURN:
                warp.exited |= active;
                lanes &= ~active;
                ++pc;
                for (Group& group : warp.groups)  // what waits for these lanes need not any longer
                    if (group.state == Group::AT_COLLECTIVE) group.state = Group::RUNS;
                break;
            case Flow::BLOCK_BARRIER:
                warp.add(pc, active, Group::AT_BLOCK_BARRIER);
                lanes &= ~active;
                ++pc;
                break;
            case Flow::WARP_BARRIER:
            case Flow::COLLECTIVE:
            case Flow::ALIGNED: {
                if (instruction.flow == Flow::ALIGNED && active != lanes) fail("runs in a part of a warp");
                for (size_t i = 0; i < warp.groups.size(); ++i)
                    if (warp.groups[i].state == Group::AT_COLLECTIVE && warp.groups[i].pc == pc) {
                        active |= warp.groups[i].lanes;
                        lanes |= warp.groups[i].lanes;
                        warp.groups.erase(warp.groups.begin() + i);
                        break;
                    }
                const u32 members = find_members(warp, instruction, active);
                if ((members & ~active) != 0) {
                    warp.add(pc, active, Group::AT_COLLECTIVE);
                    lanes &= ~active;
                } else {
                    instruction.execute(warp, instruction, active);
                    if (instruction.flow == Flow::WARP_BARRIER && (members | warp.exited) == ALL_LANES) ++warp.epoch;
                }
                ++pc;
                break;
            }
            }
        } catch (const Fault& fault) {
            fail(describe(instruction) + " " + fault.text);
        }
    }
}

// Every thread that has not ended waits: at one barrier of the block, or for nothing that will come.
void Block::release()
{
    u32 pc = NONE;
    for (const Warp& warp : warps) {
        const Group* waiting = nullptr;
        for (const Group& group : warp.groups) {
            if (group.state == Group::AT_COLLECTIVE) {
                if (waiting != nullptr)
                    fail("lanes of one warp meet at different warp collectives: " + describe(kernel.code[waiting->pc]) +
                         " and " + describe(kernel.code[group.pc]));
                waiting = &group;
            } else if (pc != NONE && group.pc != pc) {
                fail("threads of one block wait at different __syncthreads: " + describe(kernel.code[pc]) + " and " +
                     describe(kernel.code[group.pc]));
            } else {
                pc = group.pc;
            }
        }
        if (waiting != nullptr && pc == NONE && warp.groups.size() == 1)
            fail("deadlock: lanes wait at " + describe(kernel.code[waiting->pc]));
    }
    for (const Warp& warp : warps)
        for (const Group& group : warp.groups)
            if (group.state == Group::AT_COLLECTIVE)
                fail("deadlock: lanes wait at " + describe(kernel.code[group.pc]) + ", others at " +
                     describe(kernel.code[pc]));
    ++epoch;
    for (Warp& warp : warps) {
        ++warp.epoch;
        for (Group& group : warp.groups) group = {group.pc + 1, group.lanes, Group::RUNS};
    }
}

void Block::run()
{
    const u32 thread_count = launch.block[0] * launch.block[1] * launch.block[2];
    epoch = 0;
    for (Warp& warp : warps) start(warp, launch, position, thread_count);
    std::vector<u32> order(warps.size());
    std::iota(order.begin(), order.end(), 0);
    if (launch.seed == 1) std::reverse(order.begin(), order.end());
    while (true) {
        if (launch.seed >= FIRST_RANDOM_SEED) std::shuffle(order.begin(), order.end(), random);
        const auto next = std::find_if(order.begin(), order.end(), [&](u32 warp) { return warps[warp].can_run(); });
        if (next != order.end()) {
            run_group(warps[*next]);
        } else if (std::all_of(warps.begin(), warps.end(), [](const Warp& warp) { return warp.groups.empty(); })) {
            return;
        } else {
            release();
        }
    }
}

void run(const Kernel& kernel, const Launch& launch, const u64* arguments, const u64* regions, size_t region_count,
         u8* reached)
{
    constexpr u64 ALIGNMENT = 1024;
    const u64 shared_bytes = launch.shared_bytes == 0 ? kernel.shared_bytes
                                                      : (kernel.shared_bytes + 15) / 16 * 16 + launch.shared_bytes;
    std::vector<u8> shared_memory(shared_bytes + ALIGNMENT, 0xff);
    const u64 shared[] = {(u64(shared_memory.data()) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, shared_bytes};
    const u32 warp_count = (launch.block[0] * launch.block[1] * launch.block[2] + LANES - 1) / LANES;
    std::vector<u8> registers((size_t(kernel.register_bytes) + 64) * warp_count + 64);
    Memory global(regions, region_count, kernel.global_granule);
    std::mt19937 random(launch.seed);
    Block block{.kernel = kernel,
                .launch = launch,
                .arguments = arguments,
                .global = global,
                .shared = Memory(shared, 1, kernel.shared_granule),
                .shared_base = shared[0],
                .random = random,
                .reached = reached,
                .warps = std::vector<Warp>(warp_count)};
    const u64 first = (u64(registers.data()) + 63) / 64 * 64, stride = (kernel.register_bytes + 63) / 64 * 64;
    for (u32 i = 0; i < warp_count; ++i) {
        block.warps[i].block = &block;
        block.warps[i].index = i;
        block.warps[i].registers = reinterpret_cast<u8*>(first + i * stride);
        set_constants(block.warps[i]);
        for (const Special& one : kernel.specials) set(block.warps[i], one, launch, block.position);
    }
    std::vector<u32> order(launch.grid[0] * launch.grid[1] * launch.grid[2]);
    std::iota(order.begin(), order.end(), 0);
    if (launch.seed == 1) std::reverse(order.begin(), order.end());
    if (launch.seed >= FIRST_RANDOM_SEED) std::shuffle(order.begin(), order.end(), random);
    for (u32 number : order) {
        block.number = number;
        block.position[0] = number % launch.grid[0];
        block.position[1] = number / launch.grid[0] % launch.grid[1];
        block.position[2] = number / launch.grid[0] / launch.grid[1];
        block.run();
    }
}

}  // namespace ptx
