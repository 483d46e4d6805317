// What Python calls.
#include <cstring>
#include <sstream>

#include "run.h"

using namespace ptx;

namespace {

template <class Work> int guard(char* error, size_t capacity, Work work)
{
    try {
        work();
        return 0;
    } catch (const Fault& fault) {
        std::strncpy(error, fault.text.c_str(), capacity - 1);
    } catch (const std::exception& exception) {  // a number that is none, no memory
        std::strncpy(error, exception.what(), capacity - 1);
    }
    return 1;
}

}  // namespace

extern "C" {

// Returns the kernels of a text, for good, or null with the reason in `error`.
void* ptx_load(const char* text, char* error, size_t capacity)
{
    auto* kernels = new std::map<std::string, Kernel>;
    if (guard(error, capacity, [&] { *kernels = parse(text); }) == 0) return kernels;
    delete kernels;
    return nullptr;
}

// Writes a line for each kernel: name, most threads, static shared bytes, parameters such as u8 and f4 joined by
// commas, and "file:line" of its barriers.
void ptx_describe(const void* kernels, char* text, size_t capacity)
{
    std::ostringstream lines;
    for (const auto& [name, kernel] : *static_cast<const std::map<std::string, Kernel>*>(kernels)) {
        lines << name << ' ' << kernel.max_threads << ' ' << kernel.shared_bytes << " (";
        for (const Parameter& one : kernel.parameters) lines << (one.is_float ? 'f' : 'u') << one.bytes << ',';
        lines << ')';
        for (u32 at : kernel.barriers) lines << ' ' << kernel.code[at].file << ':' << kernel.code[at].line;
        lines << '\n';
    }
    std::strncpy(text, lines.str().c_str(), capacity - 1);
}

int ptx_run(const void* kernels, const char* name, const Launch* launch, const uint64_t* arguments,
            const uint64_t* regions, size_t region_count, uint8_t* reached, char* error, size_t capacity)
{
    return guard(error, capacity, [&] {
        const auto& all = *static_cast<const std::map<std::string, Kernel>*>(kernels);
        run(all.at(name), *launch, arguments, regions, region_count, reached);
    });
}
}
