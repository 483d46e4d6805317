// Warp collectives. Every lane of the warp has to take part: masks are not looked at.
#pragma once

#include "execution.h"

namespace emulation {

template <class T> T take_from(LaneValues values, int lane) {
    static_assert(sizeof(T) <= LANE_BYTES);
    T value;
    memcpy(&value, values[lane], sizeof(T));
    return value;
}

template <class T> T shuffle(T value, int source, bool is_inside) {
    LaneValues values = meet_warp(Collective::SHUFFLE, &value, sizeof(T));
    return take_from<T>(values, is_inside ? source : get_lane());
}

}  // namespace emulation

template <class T> T __shfl_sync(unsigned, T value, int source, int width = 32) {
    return emulation::shuffle(value, (emulation::get_lane() & ~(width - 1)) | (source & (width - 1)), true);
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
    int lane = emulation::get_lane(), source = lane ^ mask;
    return emulation::shuffle(value, source, (source & ~(width - 1)) == (lane & ~(width - 1)));
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
    int lane = emulation::get_lane();
    return emulation::shuffle(value, lane + (int)delta, (lane & (width - 1)) + (int)delta < width);
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
    int lane = emulation::get_lane();
    return emulation::shuffle(value, lane - (int)delta, (lane & (width - 1)) >= (int)delta);
}

inline unsigned __ballot_sync(unsigned, int predicate) {
    auto values = emulation::meet_warp(emulation::Collective::VOTE, &predicate, sizeof(predicate));
    unsigned votes = 0;
    int lane_count = (int)emulation::block->warps[emulation::fiber->thread / 32].lane_count;
    for (int lane = 0; lane < lane_count; ++lane)
        if (emulation::take_from<int>(values, lane)) votes |= 1u << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline unsigned __activemask() { return 0xffffffffu; }
