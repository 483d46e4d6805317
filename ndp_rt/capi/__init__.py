"""The C face: `include/ndp_rt.h`, and the library behind it.

`source/` is libndp_rt.so, which checks arguments, keeps handles and queues, and knows nothing of Python; and the
bridge, which it loads to start an interpreter in the host's process. `calls` is what the bridge calls there. `build`
compiles both.
"""
