// Arithmetic, by the instruction's whole name.
#include <cmath>
#include <tuple>
#include <unordered_map>

#include "collectives.h"
#include "lanes.h"

namespace ptx {
namespace {

typedef std::unordered_map<std::string, Operation> Table;

float flush(float value)  // -ftz=true: denormals count as zero
{
    const u32 bits = std::bit_cast<u32>(value);
    return std::bit_cast<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
}

template <bool is_flushed> float keep(float value) { return is_flushed ? flush(value) : value; }

// The smaller or larger of two values; the other one where one is NaN; -0 is smaller than +0.
template <bool is_min> float choose(float a, float b)
{
    const bool is_a = a < b || (a == b && std::signbit(a));
    return std::isnan(a) ? b : std::isnan(b) ? a : is_a == is_min ? a : b;
}

template <bool is_flushed> void add_float(Table& table)
{
    constexpr auto k = keep<is_flushed>;
    const std::string ftz = is_flushed ? ".ftz" : "";
    for (const std::string rn : {"", ".rn"}) {
        table["add" + rn + ftz + ".f32"] = each([](float a, float b) { return k(k(a) + k(b)); });
        table["sub" + rn + ftz + ".f32"] = each([](float a, float b) { return k(k(a) - k(b)); });
        table["mul" + rn + ftz + ".f32"] = each([](float a, float b) { return k(k(a) * k(b)); });
    }
    table["div.rn" + ftz + ".f32"] = each([](float a, float b) { return k(k(a) / k(b)); });
    table["fma.rn" + ftz + ".f32"] = each([](float a, float b, float c) { return k(std::fma(k(a), k(b), k(c))); });
    table["rcp.rn" + ftz + ".f32"] = each([](float a) { return k(1.0f / k(a)); });
    table["sqrt.rn" + ftz + ".f32"] = each([](float a) { return k(std::sqrt(k(a))); });
    table["ex2.approx" + ftz + ".f32"] = each([](float a) { return k(std::exp2(k(a))); });
    table["min" + ftz + ".f32"] = each([](float a, float b) { return choose<true>(k(a), k(b)); });
    table["max" + ftz + ".f32"] = each([](float a, float b) { return choose<false>(k(a), k(b)); });
    table["neg" + ftz + ".f32"] = each([](float a) { return -k(a); });
    table["abs" + ftz + ".f32"] = each([](float a) { return std::fabs(k(a)); });
    table["cvt.rn" + ftz + ".f32.f64"] = each([](double a) { return k(float(a)); });
    table["cvt" + ftz + ".f64.f32"] = each([](float a) { return double(k(a)); });
    table["cvt.rzi" + ftz + ".u32.f32"] = each([](float a) -> u32 {
        return !(a > 0.0f) ? 0 : a >= 4294967296.0f ? ~0u : u32(a);
    });
    table["cvt.rzi" + ftz + ".s32.f32"] = each([](float a) -> s32 {
        return std::isnan(a) ? 0 : a >= 2147483648.0f ? INT32_MAX : a <= -2147483648.0f ? INT32_MIN : s32(a);
    });
    const std::string end = ftz + ".f32";
    table["setp.eq" + end] = each([](float a, float b) { return k(a) == k(b); });
    table["setp.ne" + end] = each([](float a, float b) { return k(a) < k(b) || k(a) > k(b); });
    table["setp.lt" + end] = each([](float a, float b) { return k(a) < k(b); });
    table["setp.le" + end] = each([](float a, float b) { return k(a) <= k(b); });
    table["setp.gt" + end] = each([](float a, float b) { return k(a) > k(b); });
    table["setp.ge" + end] = each([](float a, float b) { return k(a) >= k(b); });
    table["setp.equ" + end] = each([](float a, float b) { return !(k(a) < k(b) || k(a) > k(b)); });
    table["setp.neu" + end] = each([](float a, float b) { return k(a) != k(b); });
    table["setp.ltu" + end] = each([](float a, float b) { return !(k(a) >= k(b)); });
    table["setp.leu" + end] = each([](float a, float b) { return !(k(a) > k(b)); });
    table["setp.gtu" + end] = each([](float a, float b) { return !(k(a) <= k(b)); });
    table["setp.geu" + end] = each([](float a, float b) { return !(k(a) < k(b)); });
    table["setp.nan" + end] = each([](float a, float b) { return std::isnan(a) || std::isnan(b); });
    table["setp.num" + end] = each([](float a, float b) { return !std::isnan(a) && !std::isnan(b); });
}

void add_double(Table& table)
{
    for (const std::string rn : {"", ".rn"}) {
        table["add" + rn + ".f64"] = each([](double a, double b) { return a + b; });
        table["sub" + rn + ".f64"] = each([](double a, double b) { return a - b; });
        table["mul" + rn + ".f64"] = each([](double a, double b) { return a * b; });
    }
    table["div.rn.f64"] = each([](double a, double b) { return a / b; });
    table["fma.rn.f64"] = each([](double a, double b, double c) { return std::fma(a, b, c); });
    table["cvt.rn.f64.s64"] = each([](s64 a) { return double(a); });
    table["cvt.rn.f64.u32"] = each([](u32 a) { return double(a); });
    table["cvt.rn.f64.s32"] = each([](s32 a) { return double(a); });
}

template <class T> T divide(T a, T b)
{
    if (b == 0) return T(-1);  // a GPU goes on as well; what it gives is not defined
    return std::is_signed_v<T> && b == T(-1) ? T(0) - a : T(a / b);
}

// T is signed or unsigned; Wide holds its products.
template <class T, class Wide> void add_integer(Table& table, const std::string& type)
{
    typedef std::make_unsigned_t<T> U;
    table["add." + type] = each([](T a, T b) -> T { return U(a) + U(b); });
    table["sub." + type] = each([](T a, T b) -> T { return U(a) - U(b); });
    table["mul.lo." + type] = each([](T a, T b) -> T { return u64(a) * u64(b); });
    table["mul.hi." + type] = each([](T a, T b) -> T { return (Wide(a) * Wide(b)) >> (8 * sizeof(T)); });
    table["mad.lo." + type] = each([](T a, T b, T c) -> T { return u64(a) * u64(b) + u64(c); });
    table["div." + type] = each([](T a, T b) -> T { return divide(a, b); });
    table["rem." + type] = each([](T a, T b) -> T { return b == 0 ? a : T(U(a) - U(divide(a, b)) * U(b)); });
    table["min." + type] = each([](T a, T b) { return a < b ? a : b; });
    table["max." + type] = each([](T a, T b) { return a > b ? a : b; });
    table["shr." + type] = each([](T a, u32 b) -> T {
        constexpr u32 bits = 8 * sizeof(T);
        return b < bits ? a >> b : a < 0 ? T(-1) : T(0);
    });
    table["setp.eq." + type] = each([](T a, T b) { return a == b; });
    table["setp.ne." + type] = each([](T a, T b) { return a != b; });
    table["setp.lt." + type] = each([](T a, T b) { return a < b; });
    table["setp.le." + type] = each([](T a, T b) { return a <= b; });
    table["setp.gt." + type] = each([](T a, T b) { return a > b; });
    table["setp.ge." + type] = each([](T a, T b) { return a >= b; });
    if constexpr (sizeof(T) <= 4) {
        typedef std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, s32, u32>, Wide> Product;
        table["mul.wide." + type] = each([](T a, T b) -> Product { return Product(a) * Product(b); });
        table["mad.wide." + type] = each([](T a, T b, Product c) -> Product { return Product(a) * Product(b) + c; });
    }
    if constexpr (sizeof(T) == 4) {
        table["cvt.rn.f32." + type] = each([](T a) { return float(a); });
        table["neg." + type] = each([](T a) -> T { return U(0) - U(a); });
        table["abs." + type] = each([](T a) -> T { return a < 0 ? U(0) - U(a) : U(a); });
    }
    if constexpr (sizeof(T) == 2) table["cvt.rn.f32." + type] = each([](T a) { return float(a); });
}

template <class T> void add_bits(Table& table, const std::string& bits)
{
    for (const char* letter : {"b", "u", "s", "f"}) {
        table["mov." + (letter + bits)] = each([](T a) { return a; });
        table["selp." + (letter + bits)] = each([](T a, T b, bool is_a) { return is_a ? a : b; });
    }
    table["and.b" + bits] = each([](T a, T b) -> T { return a & b; });
    table["or.b" + bits] = each([](T a, T b) -> T { return a | b; });
    table["xor.b" + bits] = each([](T a, T b) -> T { return a ^ b; });
    table["not.b" + bits] = each([](T a) -> T { return ~a; });
    table["shl.b" + bits] = each([](T a, u32 b) -> T { return b < 8 * sizeof(T) ? T(a << b) : T(0); });
    table["shr.b" + bits] = each([](T a, u32 b) -> T { return b < 8 * sizeof(T) ? T(a >> b) : T(0); });
    table["setp.eq.b" + bits] = each([](T a, T b) { return a == b; });
    table["setp.ne.b" + bits] = each([](T a, T b) { return a != b; });
}

// Conversions between integers. A narrow value may stand in a wider register, of which its low bits count.
template <class To, class From> void add_conversion(Table& table, const std::string& name)
{
    typedef std::conditional_t<sizeof(To) == 1, u16, To> Held;
    typedef std::conditional_t<sizeof(From) == 1, u16, From> Narrow;
    table[name] = each([](Narrow a) -> Held { return To(From(a)); });
    if constexpr (sizeof(From) <= 2) table[name + " of 32"] = each([](u32 a) -> Held { return To(From(a)); });
}

template <class To> void add_conversions(Table& table, const std::string& to)
{
    add_conversion<To, u8>(table, "cvt." + to + ".u8");
    add_conversion<To, s8>(table, "cvt." + to + ".s8");
    add_conversion<To, u16>(table, "cvt." + to + ".u16");
    add_conversion<To, s16>(table, "cvt." + to + ".s16");
    add_conversion<To, u32>(table, "cvt." + to + ".u32");
    add_conversion<To, s32>(table, "cvt." + to + ".s32");
    add_conversion<To, u64>(table, "cvt." + to + ".u64");
    add_conversion<To, s64>(table, "cvt." + to + ".s64");
}

u32 permute(u32 a, u32 b, u32 selection)
{
    const u64 bytes = u64(b) << 32 | a;
    u32 result = 0;
    for (int i = 0; i < 4; ++i) {
        const u32 choice = selection >> 4 * i & 15, byte = bytes >> 8 * (choice & 7) & 0xff;
        result |= (choice & 8 ? byte & 0x80 ? 0xff : 0 : byte) << 8 * i;
    }
    return result;
}

u32 insert_bits(u32 field, u32 into, u32 position, u32 length)
{
    position &= 0xff, length &= 0xff;
    if (position >= 32 || length == 0) return into;
    const u32 mask = (length >= 32 ? ~0u : (1u << length) - 1) << position;
    return (into & ~mask) | (field << position & mask);
}

void add_others(Table& table)
{
    table["mov.pred"] = each([](bool a) { return a; });
    table["and.pred"] = each([](bool a, bool b) { return a && b; });
    table["or.pred"] = each([](bool a, bool b) { return a || b; });
    table["xor.pred"] = each([](bool a, bool b) { return a != b; });
    table["not.pred"] = each([](bool a) { return !a; });
    table["pack.b32"] = each([](u16 a, u16 b) { return u32(b) << 16 | a; });
    table["pack.b64"] = each([](u32 a, u32 b) { return u64(b) << 32 | a; });
    table["bfi.b32"] = each([](u32 a, u32 b, u32 c, u32 d) { return insert_bits(a, b, c, d); });
    table["prmt.b32"] = each([](u32 a, u32 b, u32 c) { return permute(a, b, c); });
    table["popc.b32"] = each([](u32 a) -> u32 { return std::popcount(a); });
    table["cvta.to.global.u64"] = table["cvta.global.u64"] = each([](u64 a) { return a; });
    table["cvta.shared.u64"] = each([](u64 a) { return a + SHARED_WINDOW; });
    table["cvta.to.shared.u64"] = each([](u64 a) { return a - SHARED_WINDOW; });
    table["cvt.f32.f16"] = each([](u16 a) { return widen_half(a); });
    table["cvt.rn.f16.f32"] = each([](float a) { return narrow_to_half(a); });
    table["cvt.f32.bf16"] = each([](u16 a) { return widen_bfloat(a); });
    table["cvt.rn.bf16.f32"] = each([](float a) { return narrow_to_bfloat(a); });
}

Table make_table()
{
    Table table = list_collectives();
    add_float<false>(table);
    add_float<true>(table);
    add_double(table);
    add_integer<s16, s32>(table, "s16");
    add_integer<u16, u32>(table, "u16");
    add_integer<s32, s64>(table, "s32");
    add_integer<u32, u64>(table, "u32");
    add_integer<s64, __int128>(table, "s64");
    add_integer<u64, unsigned __int128>(table, "u64");
    add_bits<u16>(table, "16");
    add_bits<u32>(table, "32");
    add_bits<u64>(table, "64");
    add_conversions<u8>(table, "u8");
    add_conversions<s8>(table, "s8");
    add_conversions<u16>(table, "u16");
    add_conversions<s16>(table, "s16");
    add_conversions<u32>(table, "u32");
    add_conversions<s32>(table, "s32");
    add_conversions<u64>(table, "u64");
    add_conversions<s64>(table, "s64");
    add_others(table);
    return table;
}

}  // namespace

const Operation* find_operation(const std::string& name)
{
    static const Table table = make_table();
    const auto found = table.find(name);
    return found == table.end() ? nullptr : &found->second;
}

}  // namespace ptx
