#include "emulation/bfloat16.h"
