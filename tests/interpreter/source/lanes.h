// Runs a function of one lane's values over the lanes of a warp.
#pragma once

#include <bit>
#include <tuple>
#include <utility>

#include "run.h"

namespace ptx {

template <class T> constexpr Width width_of()
{
    return std::is_same_v<T, bool> ? PREDICATE : Width(sizeof(T));
}

template <class T> struct Source {
    const T* values;
    Source(Warp& warp, u32 place) : values(warp.at<T>(place)) {}
    T operator[](int lane) const { return values[lane]; }
};
template <> struct Source<bool> {
    u32 bits;
    Source(Warp& warp, u32 place) : bits(*warp.at<u32>(place)) {}
    bool operator[](int lane) const { return bits >> lane & 1; }
};

template <class F, class R, class... A, size_t... I>
void run_lanes(Warp& warp, const Instruction& instruction, u32 active, R (*)(A...), std::index_sequence<I...>)
{
    const std::tuple<Source<A>...> sources{Source<A>(warp, instruction.places[I + 1])...};
    if constexpr (std::is_same_v<R, bool>) {
        u32 bits = 0;
        for (int lane = 0; lane < LANES; ++lane) bits |= u32(F{}(std::get<I>(sources)[lane]...)) << lane;
        u32& result = *warp.at<u32>(instruction.places[0]);
        result = (result & ~active) | (bits & active);
    } else {
        R* result = warp.at<R>(instruction.places[0]);
        if (active == ALL_LANES) {
#pragma GCC ivdep
            for (int lane = 0; lane < LANES; ++lane) result[lane] = F{}(std::get<I>(sources)[lane]...);
        } else {
            for (u32 left = active; left != 0; left &= left - 1) {
                const int lane = std::countr_zero(left);
                result[lane] = F{}(std::get<I>(sources)[lane]...);
            }
        }
    }
}

template <class F, class R, class... A> Operation describe(R (*)(A...))
{
    constexpr R (*same)(A...) = nullptr;
    return {[](Warp& warp, const Instruction& instruction, u32 active) {
                run_lanes<F>(warp, instruction, active, same, std::index_sequence_for<A...>());
            },
            Flow::NEXT,
            {width_of<R>(), width_of<A>()...}};
}

// The operation that gives its first register F of the others, lane by lane.
template <class F> Operation each(F function) { return describe<F>(+function); }

}  // namespace ptx
