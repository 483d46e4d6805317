// What NVRTC offers without an include, for the host compiler.
#pragma once

#include "emulation/qualifiers.h"
//
#include "emulation/atomics.h"
#include "emulation/execution.h"
#include "emulation/intrinsics.h"
#include "emulation/vector_types.h"
#include "emulation/warp.h"
