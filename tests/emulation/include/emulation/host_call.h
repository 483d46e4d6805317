// How the host calls a kernel: arguments as the addresses of their values, as cuLaunchKernel takes them.
#pragma once

#include <immintrin.h>
#include <link.h>
#include <signal.h>
#include <type_traits>
#include <utility>

#include "execution.h"

namespace emulation {

struct Argument {
    const void *value;
    uint32_t bytes;
    uint32_t is_float;
};

inline sigjmp_buf fault_return;

inline void on_fault(int, siginfo_t *info, void *) {
    report->fault_address = (uint64_t)(uintptr_t)info->si_addr;
    siglongjmp(fault_return, 1);
}

// Takes over memory faults while it lives, so that a kernel's wild access ends the launch and not the process.
class FaultGuard {
    struct sigaction segv_before_, bus_before_;
    stack_t stack_before_;

  public:
    FaultGuard() {
        static unsigned char stack[64 * 1024];
        stack_t own = {};
        own.ss_sp = stack;
        own.ss_size = sizeof(stack);
        sigaltstack(&own, &stack_before_);
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &segv_before_);
        sigaction(SIGBUS, &action, &bus_before_);
    }
    ~FaultGuard() {
        sigaction(SIGSEGV, &segv_before_, nullptr);
        sigaction(SIGBUS, &bus_before_, nullptr);
        sigaltstack(&stack_before_, nullptr);
    }
};

struct Memory {
    unsigned char *begin;
    size_t bytes;
};

// All thread-local storage of this library is shared memory of its kernels; the anchor makes sure that there is some.
inline thread_local volatile unsigned char shared_anchor;

inline Memory find_shared_memory() {
    shared_anchor = 0;  // the storage is made at the first access
    Memory found = {nullptr, 0};
    auto look = [](dl_phdr_info *info, size_t, void *out) {
        auto own = (uintptr_t)&report;
        bool is_ours = false;
        const ElfW(Phdr) *storage = nullptr;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
            const ElfW(Phdr) &header = info->dlpi_phdr[i];
            uintptr_t start = info->dlpi_addr + header.p_vaddr;
            if (header.p_type == PT_LOAD && own >= start && own < start + header.p_memsz) is_ours = true;
            if (header.p_type == PT_TLS) storage = &header;
        }
        if (!is_ours) return 0;
        if (storage) *(Memory *)out = {(unsigned char *)info->dlpi_tls_data, storage->p_memsz};
        return 1;
    };
    dl_iterate_phdr(look, &found);
    return found;
}

template <class Kernel> struct Call;
template <class... Parameters> struct Call<void (*)(Parameters...)> {
    static constexpr size_t COUNT = sizeof...(Parameters);
    static inline void (*kernel)(Parameters...);
    static inline const Argument *arguments;

    // Returns the place of the first argument that has another size or kind than its parameter, or -1.
    static int find_misfit() {
        int place = 0, misfit = -1;
        auto look = [&](size_t bytes, bool is_float) {
            const Argument &argument = arguments[place];
            if (misfit < 0 && (argument.bytes != bytes || (argument.is_float != 0) != is_float)) misfit = place;
            ++place;
        };
        (look(sizeof(Parameters), std::is_floating_point_v<Parameters>), ...);
        return misfit;
    }
    template <size_t... I> static void run(std::index_sequence<I...>) {
        kernel(*static_cast<const std::remove_cv_t<Parameters> *>(arguments[I].value)...);
    }
    static void run_thread() { run(std::index_sequence_for<Parameters...>()); }
};

inline void fail(const char *text) { snprintf(report->error, sizeof(report->error), "%s", text); }

// Runs every block. A fault jumps back into this frame, so that nothing with a destructor may live in it.
inline void run_grid(Memory shared, Memory beyond) {
    if (sigsetjmp(fault_return, 1)) return fail("a thread touched memory that is not the kernel's");
    unsigned number = 0;
    for (unsigned z = 0; z < request->grid[2]; ++z)
        for (unsigned y = 0; y < request->grid[1]; ++y)
            for (unsigned x = 0; x < request->grid[0]; ++x) {
                memset(shared.begin, 0xFF, shared.bytes);  // NaN: what is read before it is written shows
                run_block({x, y, z}, number++);
                if (block->error) return fail(block->error);
                for (size_t i = 0; i < beyond.bytes; ++i)
                    if (beyond.begin[i] != 0xFF) return fail("a thread wrote past the launch's dynamic shared memory");
            }
}

inline const char *find_bad_size(unsigned max_threads) {
    const unsigned *grid = request->grid, *size = request->block;
    if (!grid[0] || !grid[1] || !grid[2] || !size[0] || !size[1] || !size[2]) return "an empty grid or block";
    if (grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) return "a grid beyond 2^31 - 1, 65535, 65535";
    if (size[0] > 1024 || size[1] > 1024 || size[2] > 64) return "a block beyond 1024, 1024, 64";
    if (size[0] * size[1] * size[2] > max_threads) return "more threads in a block than its __launch_bounds__, or 1024";
    return nullptr;
}

// Runs a launch of `kernel`; `dynamic` is its dynamic shared memory and a guard of GUARD_BYTES behind it.
constexpr size_t GUARD_BYTES = 4096;

template <class Kernel>
void launch(Kernel kernel, unsigned max_threads, Memory dynamic, const Request *asked, Report *told,
            const Argument *arguments, size_t argument_count) {
    using KernelCall = Call<Kernel>;
    request = asked;
    report = told;
    if (argument_count != KernelCall::COUNT) return fail("another number of arguments than of parameters");
    KernelCall::kernel = kernel;
    KernelCall::arguments = arguments;
    if (int misfit = KernelCall::find_misfit(); misfit >= 0) {
        snprintf(told->error, sizeof(told->error), "argument %d has another size or kind than its parameter", misfit);
        return;
    }
    if (const char *error = find_bad_size(max_threads)) return fail(error);
    if (asked->shared_bytes && asked->shared_bytes + GUARD_BYTES > dynamic.bytes)
        return fail("more dynamic shared memory than the kernel can have");
    static Block *own_block = new Block();
    block = own_block;
    thread_body = KernelCall::run_thread;
    unsigned control = _mm_getcsr();
    _mm_setcsr(control | 0x8040);  // denormals are flushed to zero, as -ftz=true does
    {
        FaultGuard guard;
        Memory beyond = {dynamic.begin + asked->shared_bytes, dynamic.bytes ? GUARD_BYTES : 0};
        run_grid(find_shared_memory(), beyond);
    }
    _mm_setcsr(control);
}

}  // namespace emulation

// __launch_bounds__ may name more than the number of threads.
constexpr unsigned ndp_rt_first(unsigned max_threads, unsigned = 0, unsigned = 0) { return max_threads; }

// The entry of one kernel in the library: `dynamic` is its dynamic shared memory, if it `has` any.
#define NDP_RT_HOST_ENTRY(name, max_threads, dynamic, has)                                                   \
    extern "C" __attribute__((visibility("default"))) void ndp_rt_launch_##name(                            \
        const emulation::Request *request, emulation::Report *report, const emulation::Argument *arguments, \
        size_t argument_count) {                                                                             \
        emulation::Memory memory = {reinterpret_cast<unsigned char *>(dynamic), has ? sizeof(dynamic) : 0};  \
        emulation::launch(&name, max_threads, memory, request, report, arguments, argument_count);           \
    }
