"""`ndp-rt capi`: prints the flags that C and C++ programs are built with."""

import argparse

DETAILS = """\
Flags come on one line, quoted for a shell; each path on a line of its own. Without options: where everything lies, and
whether the library is built. Where a path holds spaces, have the shell read the quotes:

  eval "cc first.c $(ndp-rt capi --cflags --libs) -o first"

'ndp-rt capi build' compiles the library where installing ndp-rt could not. Exit code: 0 done; 1 an error, such as a
library that is asked for and not built.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    for name, purpose in {
        "cflags": "what to compile with",
        "libs": "what to link with; the program then finds the library where it is",
        "include-dir": "the folder of ndp_rt.h and ndp_rt.hpp",
        "library": "the path of libndp_rt.so",
        "pkgconfig-dir": "the folder for PKG_CONFIG_PATH",
        "examples": "the folder of programs in C, C++ and C#, to read, build and copy",
        "demo": "the path of the demo's bundle, to try programs with",
        "demo-images": "the folder of a good and a defective photograph for it, good.ppm and defect.ppm",
        "cmake-dir": "the folder for ndp_rt_DIR of CMake's find_package(ndp_rt)",
    }.items():
        parser.add_argument(f"--{name}", action="store_true", help=purpose)


def run(args: argparse.Namespace) -> int:
    """Print the flags and paths that the arguments name."""
    import shlex

    from ndp_rt.capi.build import FOLDER, INCLUDE, LIBRARY_NAME
    from ndp_rt.capi.installed import (
        CMAKE,
        DEMO,
        DEMO_IMAGES,
        EXAMPLES,
        PKGCONFIG,
        describe,
        find_problem,
        find_remedy,
        list_compile_flags,
        list_link_flags,
    )
    from ndp_rt.errors import MissingExtraError

    problem = find_problem() if args.libs or args.library else None
    if problem is not None:
        raise MissingExtraError(f"{problem}. Run: {find_remedy()}")
    flags = (list_compile_flags() if args.cflags else []) + (list_link_flags() if args.libs else [])
    lines = [shlex.join(flags)] if flags else []
    for is_asked, path in (
        (args.include_dir, INCLUDE),
        (args.library, FOLDER / LIBRARY_NAME),
        (args.pkgconfig_dir, PKGCONFIG),
        (args.cmake_dir, CMAKE),
        (args.examples, EXAMPLES),
        (args.demo, DEMO),
        (args.demo_images, DEMO_IMAGES),
    ):
        lines += [str(path)] if is_asked else []
    print("\n".join(lines) or describe())
    return 0
