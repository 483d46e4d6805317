#include "emulation/wmma.h"
