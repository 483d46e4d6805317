// Memory that is watched: bounds, alignment, what was never written, and accesses that nothing puts in order.
#pragma once

#include <memory>

#include "program.h"

namespace ptx {

// Who accesses, and when. Two accesses are in order if one thread made both, if a barrier of the block stood between
// them, or in one warp a barrier of all its lanes.
struct Moment {
    u32 block = 0;  // counted from 1
    u16 warp = 0, thread = 0;
    u32 block_epoch = 0, warp_epoch = 0;
};

// The last write of one granule, and the reads since, as far as they can be in conflict.
struct Shadow {
    Moment write, read;
    bool is_atomic;
};

struct Region {
    u64 base = 0, bytes = 0;
    Shadow* shadows = nullptr;  // by granule; made at the first access, and pages of it exist once they are touched
    u64 shadow_bytes = 0;

    Region(u64 base, u64 bytes) : base(base), bytes(bytes) {}
    Region(Region&& other) noexcept;
    ~Region();
    bool holds(u64 address, u32 count) const;
    void watch(u8 granule);
};

enum class Use : u8 { READ, WRITE, ATOMIC };

class Memory {
public:
    // regions: address and size, in the order of their addresses.
    Memory(const u64* regions, size_t count, u8 granule);
    // Returns where the bytes lie on the host. Throws Fault.
    u8* access(u64 address, u32 bytes, Use use, const Moment& moment, bool is_shared_memory = false);

    Memory(Memory&&) = default;

private:
    std::string describe_place(u64 address) const;

    std::vector<Region> regions_;
    Region* last_ = nullptr;
    u8 granule_;
};

struct AccessOperation {
    Execute execute;
    int operand_count;  // 0: as many as elements
};
AccessOperation find_access(const std::string& name);
void load_parameter(Warp& warp, const Instruction& instruction, u32 active);

}  // namespace ptx
