#include "emulation/half.h"
