"""The command line: `ndp-rt COMMAND`. Each command is a module of this package, imported only when it is called.

Exit codes: 0 done; 1 an NdpRtError, one line on stderr; 2 wrong usage; 130 Ctrl-C. `inspect` adds 3 (defects found)
and 4 (some images could not be read; the others were inspected).
"""

import argparse
import contextlib
import keyword
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from ndp_rt import __version__
from ndp_rt.cli.terminal import complain, open_missing_streams
from ndp_rt.errors import NdpRtError, needs_extra

EXIT_OK, EXIT_ERROR, EXIT_USAGE, EXIT_DEFECTS, EXIT_UNREADABLE, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130

COMMANDS = {
    "demo": "see it work: inspect photographs with the bundle that ships in the package",
    "train": "train the PyTorch model on photographs of a good surface",
    "export": "turn a training run into a bundle",
    "import": "turn an ONNX model of another program into a bundle",
    "quantise": "choose the layers of a bundle that compute in int8",
    "build-engine": "compile a bundle for this machine",
    "export-stages": "write a bundle's graphs for the GPU, to build engines from on another machine",
    "inspect": "inspect images: scores, decisions, defect lists, overlays",
    "serve": "answer clients over HTTP and gRPC (Open Inference Protocol)",
    "watch": "inspect images as they come into a folder",
    "evaluate": "measure a bundle on labelled images",
    "compare": "set several bundles side by side on labelled images: accuracy, decisions, times, size",
    "bench": "measure inference times, and those of what would be used instead",
    "bench capi": "measure what calls from C cost, and whether they hold",
    "bench report": "draw records of bench as one page",
    "bench compare": "compare two records of bench",
    "set-threshold": "change a bundle's decision threshold",
    "set-reference": "change a bundle's reference image",
    "export-triton": "write a model repository that NVIDIA Triton serves",
    "sign": "sign a bundle, for those who accept signed ones alone",
    "capi": "print what C and C++ programs are built with",
    "capi build": "compile the C library for this Python",
    "doctor": "list what this machine has, and the remedy for what it lacks",
}

# The extra that a command needs, or some of its arguments; the others run on the base installation.
EXTRAS = {
    "train": "train",
    "export": "train",
    "import": "onnxruntime",
    "quantise": "evaluate",
    "evaluate": "evaluate",
    "compare": "evaluate",
    "bench": "bench",
    "bench capi": "bench",
    "bench report": "bench",
    "bench compare": "bench",
    "build-engine": "evaluate",
    "export-stages": "graphs",
    "sign": "sign",
    "serve": "serve",
}

EPILOG = "ndp-rt COMMAND --help says what a command takes. A first look: ndp-rt demo"


class Command(Protocol):
    """A command's module; DETAILS, where it has them, end its --help."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments; must not import anything heavy."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return the exit code; may raise NdpRtError."""


def load_command(name: str) -> Command:
    """Import the module of the command `name`."""
    module = re.sub("[- ]", "_", name) + ("_" if keyword.iskeyword(name) else "")
    return cast(
        Command, import_module(f"ndp_rt.cli.{module}_" if keyword.iskeyword(module) else f"ndp_rt.cli.{module}")
    )


def join_command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a command of two words, such as `bench report`, as one."""
    if len(arguments) > 1 and " ".join(arguments[:2]) in COMMANDS:
        return [" ".join(arguments[:2]), *arguments[2:]]
    return list(arguments)


def make_parser(chosen: str | None, arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the arguments of `chosen` alone (the others are not imported).

    A command whose arguments depend on one of them, as train's on --family, adds those by `add_arguments_after`.
    """
    parser = argparse.ArgumentParser(
        prog="ndp-rt",
        description="Surface-defect inspection with NDP-Net: from photographs of a good surface to an inspector.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ndp-rt {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        one = commands.add_parser(
            name,
            prog=f"ndp-rt {name}",
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == chosen:
            command = load_command(name)
            one.epilog = getattr(command, "DETAILS", None)
            command.add_arguments(one)
            if hasattr(command, "add_arguments_after"):
                command.add_arguments_after(one, arguments)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; usage errors leave through SystemExit(2), as argparse does."""
    open_missing_streams()
    arguments = join_command(list(sys.argv[1:] if argv is None else argv))
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        args = make_parser(chosen, arguments).parse_args(arguments)
        extra = EXTRAS.get(args.command)
        with needs_extra(f"ndp-rt {args.command}", extra) if extra else contextlib.nullcontext():
            code = load_command(args.command).run(args)
        if sys.stdout is not None:  # as under >&-
            sys.stdout.flush()  # a closed pipe shows here, not in the interpreter's shutdown
        return code
    except NdpRtError as error:
        complain(f"ndp-rt: error: {error}")
        return EXIT_ERROR
    except MemoryError as error:
        complain(
            f"ndp-rt: error: not enough memory ({error or 'no details'}); use smaller images or batches, or a machine "
            "with more."
        )
        return EXIT_ERROR
    except KeyboardInterrupt:
        complain("ndp-rt: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # the reader (head, less) has left
        return EXIT_OK
    except RuntimeError as error:
        if "Symlink loop" not in str(error):  # as Path.resolve has it up to Python 3.12
            raise
        complain(f"ndp-rt: error: {error}: expected a path, got links that run in circles.")
        return EXIT_ERROR
    except OSError as error:  # of a call that has no message of its own for it
        where = f"{error.filename}: " if error.filename is not None else ""
        hint = "Check the path, its permissions and the free space."
        complain(f"ndp-rt: error: {where}{error.strerror or error}. {hint}")
        try:
            sys.stdout.flush()
        except OSError:  # it was stdout that refused
            _drop_output()
        return EXIT_ERROR


def _drop_output() -> None:
    """Send stdout to the null device, so that the flush at shutdown reports nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
