// Atomics: one host thread runs everything, so that plain reads and writes are atomic. Each returns the old value.
#pragma once

template <class T> T atomicAdd(T *address, T value) {
    T old = *address;
    *address = (T)(old + value);
    return old;
}
template <class T> T atomicMax(T *address, T value) {
    T old = *address;
    if (value > old) *address = value;
    return old;
}
template <class T> T atomicMin(T *address, T value) {
    T old = *address;
    if (value < old) *address = value;
    return old;
}
template <class T> T atomicExch(T *address, T value) {
    T old = *address;
    *address = value;
    return old;
}
template <class T> T atomicOr(T *address, T value) {
    T old = *address;
    *address = old | value;
    return old;
}
template <class T> T atomicCAS(T *address, T expected, T value) {
    T old = *address;
    if (old == expected) *address = value;
    return old;
}
inline unsigned atomicInc(unsigned *address, unsigned limit) {
    unsigned old = *address;
    *address = old >= limit ? 0 : old + 1;
    return old;
}
