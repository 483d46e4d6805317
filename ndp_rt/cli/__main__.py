"""`python -m ndp_rt.cli`: the same as the command ndp-rt."""

import sys

from ndp_rt.cli import main

sys.exit(main())
