// What the lanes of a warp do together, and 16-bit numbers.
#pragma once

#include <unordered_map>

#include "program.h"

namespace ptx {

std::unordered_map<std::string, Operation> list_collectives();

float widen_half(u16 bits);
u16 narrow_to_half(float value);
float widen_bfloat(u16 bits);
u16 narrow_to_bfloat(float value);

}  // namespace ptx
