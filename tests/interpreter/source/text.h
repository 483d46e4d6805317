// Taking the text of instructions apart.
#pragma once

#include <sstream>

#include "program.h"

namespace ptx {

inline std::string trim(const std::string& text)
{
    const size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
    return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

// Splits at `separator` outside of braces and brackets.
inline std::vector<std::string> split(const std::string& text, char separator)
{
    std::vector<std::string> parts;
    std::string part;
    int depth = 0;
    for (char c : text) {
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (c == separator && depth == 0) parts.push_back(trim(part)), part.clear();
        else part += c;
    }
    if (!trim(part).empty()) parts.push_back(trim(part));
    return parts;
}

inline std::vector<std::string> split_words(const std::string& text)
{
    std::istringstream stream(text);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
}

inline bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

inline u32 count_bytes(const std::string& type)  // ".f32", "u8"
{
    const size_t digits = type.find_first_of("0123456789");
    if (digits == std::string::npos) fail("unknown type " + type);
    return std::stoul(type.substr(digits)) / 8;
}

}  // namespace ptx
