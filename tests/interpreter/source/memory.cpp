#include "memory.h"

#include <algorithm>
#include <sys/mman.h>

namespace ptx {
namespace {

constexpr u32 MANY_BLOCKS = 0xffffffffu;
constexpr u16 SEVERAL = 0xffffu;

bool is_ordered(const Moment& before, const Moment& now)
{
    if (before.block == 0) return true;
    if (before.block != now.block) return false;
    if (before.block_epoch < now.block_epoch) return true;
    return before.warp == now.warp && (before.thread == now.thread || before.warp_epoch < now.warp_epoch);
}

// Makes `kept` stand for itself and for `now`, where neither is ordered before the other.
void join(Moment& kept, const Moment& now)
{
    if (is_ordered(kept, now)) {
        kept = now;
    } else if (kept.block != now.block) {
        kept.block = MANY_BLOCKS;
    } else {
        if (kept.warp != now.warp) kept.warp = SEVERAL;
        kept.thread = SEVERAL;
    }
}

std::string describe(const Moment& moment)
{
    if (moment.block == MANY_BLOCKS) return "threads of several blocks";
    if (moment.warp == SEVERAL) return "threads of several warps";
    if (moment.thread == SEVERAL) return "several threads of a warp";
    return "thread " + std::to_string(moment.thread) + " of block " + std::to_string(moment.block - 1);
}

void check(Shadow& shadow, Use use, const Moment& now, bool is_shared_memory)
{
    if (is_shared_memory) {  // what another block left is not there
        if (shadow.write.block != now.block) shadow.write.block = 0;
        if (shadow.read.block != now.block) shadow.read.block = 0;
        if (use != Use::WRITE && shadow.write.block == 0) fail("reads shared memory that no thread wrote");
    }
    const bool both_atomic = use == Use::ATOMIC && shadow.is_atomic;
    if (!both_atomic && !is_ordered(shadow.write, now))
        fail(std::string(use == Use::READ ? "reads" : "writes") + " what " + describe(shadow.write) +
             " wrote, with no barrier between");
    if (use == Use::READ) {
        join(shadow.read, now);
        return;
    }
    if (!is_ordered(shadow.read, now))
        fail("writes what " + describe(shadow.read) + " read, with no barrier between");
    if (both_atomic) join(shadow.write, now);
    else shadow.write = now;
    shadow.is_atomic = use == Use::ATOMIC;
}

}  // namespace

bool Region::holds(u64 address, u32 count) const
{
    return address >= base && address + count <= base + bytes && address + count > address;
}

void Region::watch(u8 granule)
{
    shadow_bytes = (bytes / granule + 2) * sizeof(Shadow);
    void* got = mmap(nullptr, shadow_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) fail("no address space to watch " + std::to_string(bytes) + " bytes");
    shadows = static_cast<Shadow*>(got);
}

Region::Region(Region&& other) noexcept : base(other.base), bytes(other.bytes), shadows(other.shadows),
                                          shadow_bytes(other.shadow_bytes)
{
    other.shadows = nullptr;
}

Region::~Region()
{
    if (shadows != nullptr) munmap(shadows, shadow_bytes);
}

Memory::Memory(const u64* regions, size_t count, u8 granule) : granule_(granule)
{
    regions_.reserve(count);
    for (size_t i = 0; i < count; ++i) regions_.emplace_back(regions[2 * i], regions[2 * i + 1]);
}

u8* Memory::access(u64 address, u32 bytes, Use use, const Moment& moment, bool is_shared_memory)
{
    if (last_ == nullptr || !last_->holds(address, bytes)) {
        const auto after = std::upper_bound(regions_.begin(), regions_.end(), address,
                                            [](u64 place, const Region& one) { return place < one.base; });
        if (after == regions_.begin() || !std::prev(after)->holds(address, bytes))
            fail(std::string(use == Use::READ ? "reads " : "writes ") + std::to_string(bytes) + " bytes outside of " +
                 (is_shared_memory ? "its shared memory, " : "every array, ") + describe_place(address));
        last_ = &*std::prev(after);
        if (last_->shadows == nullptr) last_->watch(granule_);
    }
    if (address % bytes != 0) fail("an address that is not a multiple of " + std::to_string(bytes));
    Shadow* shadow = last_->shadows + (address / granule_ - last_->base / granule_);
    for (u32 i = 0; i < bytes; i += granule_) check(*shadow++, use, moment, is_shared_memory);
    return reinterpret_cast<u8*>(address);
}

std::string Memory::describe_place(u64 address) const
{
    std::string nearest = "of which there is none";
    u64 least = ~0ull;
    for (const Region& one : regions_) {
        const u64 end = one.base + one.bytes;
        const u64 distance = address < one.base ? one.base - address : address < end ? 0 : address - end;
        if (distance >= least) continue;
        least = distance;
        nearest = address < one.base ? std::to_string(distance) + " bytes before the start"
                  : address < end    ? "across the end"
                                     : std::to_string(distance) + " bytes past the end";
        nearest += " of an array of " + std::to_string(one.bytes) + " bytes";
    }
    return nearest;
}

}  // namespace ptx
