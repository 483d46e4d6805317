// A kernel as the interpreter runs it: instructions whose operands are places in a warp's register file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ptx {

typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

constexpr int LANES = 32;
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr u64 SHARED_WINDOW = 0x4000000000000000ull;  // where shared memory lies in the generic address space

struct Fault {
    std::string text;
};
[[noreturn]] void fail(const std::string& text);

// The width of a register. A predicate is one word, a bit for each lane; the others are arrays over the lanes.
enum Width : u8 { PREDICATE = 0, W16 = 2, W32 = 4, W64 = 8 };
enum class Space : u8 { GLOBAL, SHARED, GENERIC };
enum class Flow : u8 { NEXT, BRANCH, RETURN, BLOCK_BARRIER, WARP_BARRIER, COLLECTIVE, ALIGNED };

struct Warp;
struct Instruction;
typedef void (*Execute)(Warp& warp, const Instruction& instruction, u32 active);

constexpr u32 NONE = 0xffffffffu;

struct Instruction {
    Execute execute = nullptr;
    Flow flow = Flow::NEXT;
    bool is_guard_negated = false;
    u32 guard = NONE;   // the predicate's place in the register file
    u32 target = 0;     // of a branch
    u32 barrier = NONE; // the number of a barrier in its kernel
    u32 members = NONE; // the register with the lanes that take part
    // Result first; vectors count as their elements. An address is none of them.
    u32 places[16];
    Width widths[16];
    u8 operand_count = 0;
    // Loads, stores and atomics.
    Space space = Space::GLOBAL;
    u8 element_bytes = 0, element_count = 1;
    bool is_signed = false;
    u32 address = NONE;
    Width address_width = W64;
    s64 offset = 0;
    u32 line = 0;
    std::string file, text;
};

struct Parameter {
    std::string name;
    u32 bytes;
    bool is_float;
};

// A special register, such as %tid.x, or a constant: filled when a warp starts.
struct Special {
    std::string name;
    u32 place;
};
struct Constant {
    u32 place;
    Width width;
    u64 value;
};

struct Kernel {
    std::string name;
    std::vector<Instruction> code;
    std::vector<Parameter> parameters;
    std::vector<Special> specials;
    std::vector<Constant> constants;
    std::vector<u32> barriers;  // their instructions
    u32 register_bytes = 0;
    u32 max_threads = 1024;
    u64 shared_bytes = 0;  // static; the dynamic part begins at the next multiple of 16
    u8 shared_granule = 16, global_granule = 16;  // the shortest access
};

// Throws Fault on what the interpreter does not know.
std::map<std::string, Kernel> parse(const std::string& text);

// What an instruction does: by its whole name, such as "add.ftz.f32".
struct Operation {
    Execute execute;
    Flow flow;
    std::vector<Width> widths;
};
const Operation* find_operation(const std::string& name);

}  // namespace ptx
