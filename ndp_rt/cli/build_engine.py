"""`ndp-rt build-engine`: compiles a bundle for this machine, or finds that it is compiled already."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.cli.quantise import QUANTISE_ARGUMENTS, add_quantise_arguments, quantise
from ndp_rt.cli.terminal import say
from ndp_rt.program.manifest import PRECISIONS

if TYPE_CHECKING:
    from ndp_rt.bundle import Bundle
    from ndp_rt.engines.backend import BuildOptions
    from ndp_rt.engines.build import EngineRecord
    from ndp_rt.engines.spec import EngineSpec

# Layers that only hold or hand over data.
PASSIVE_LAYERS = frozenset({"Const", "Input", "Output", "Parameter", "Result"})


def parse_batches(text: str) -> tuple[int, ...]:
    """Read batch sizes such as "1,8"; ascending, each once."""
    try:
        batches = sorted({int(word) for word in text.split(",")})
    except ValueError:
        batches = []
    if not batches or batches[0] < 1:
        raise argparse.ArgumentTypeError(f"expected batch sizes such as 1 or 1,8, got {text!r}")
    return tuple(batches)


def parse_count(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from ndp_rt.engines.registry import list_backends

    parser.add_argument("bundle", metavar="NAME.ndp", help="the bundle to compile")
    parser.add_argument(
        "--backend", choices=tuple(list_backends()), help="default: the first that is installed for the device"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N; default: the backend's, else cpu")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="default: fp32; mixed: int8 and, in between, bf16"
    )
    parser.add_argument(
        "--batch", type=parse_batches, default=(1,), metavar="1,8", help="batch sizes, one engine each; default: 1"
    )
    parser.add_argument(
        "--plan",
        metavar="NAME",
        help="fused: one graph; staged: one engine a stage; unmerged: smaller stages, on a GPU; default: fused on a "
        "CPU, else staged",
    )
    parser.add_argument(
        "--threads",
        type=parse_count,
        metavar="N",
        help="threads for the check, and to choose int8 layers with; default: all cores",
    )
    parser.add_argument(
        "--into-bundle",
        action="store_true",
        help="store the engines in the bundle too, for machines that it is copied to",
    )
    parser.add_argument("--rebuild", action="store_true", help="build anew, also what is there or damaged")
    add_quantise_arguments(parser.add_argument_group("for int8 and mixed on a CPU (ndp-rt quantise says more)"))
    for flag, (field, names) in list_build_options().items():
        settings: dict[str, Any] = {"dest": field.name, "help": f"{field.metadata['help']} ({', '.join(names)})"}
        if field.metadata["metavar"] is None:
            parser.add_argument(flag, action="store_true", **settings)
        else:
            parser.add_argument(flag, type=field.metadata["parse"], metavar=field.metadata["metavar"], **settings)


def list_build_options() -> dict[str, tuple["dataclasses.Field[Any]", list[str]]]:
    """Return the build options that backends declare, by flag, with the names of the backends that have each."""
    from ndp_rt.engines.registry import list_backends

    found: dict[str, tuple[dataclasses.Field[Any], list[str]]] = {}
    for name, backend in list_backends().items():
        for field in dataclasses.fields(backend.build_options) if backend.build_options is not None else ():
            found.setdefault(field.metadata["flag"], (field, []))[1].append(name)
    return found


def run(args: argparse.Namespace) -> int:
    """Build or find the engines and print what they are."""
    from ndp_rt.bundle import open_bundle
    from ndp_rt.engines.build import build_engine
    from ndp_rt.engines.bundled import check_portable, put_into_bundle

    bundle = open_bundle(args.bundle)
    spec = make_spec(args).resolve(bundle)
    if args.into_bundle:
        check_portable(spec)
    if quantise_first(bundle, spec, args):
        bundle = open_bundle(args.bundle)
    record = build_engine(
        bundle,
        spec,
        rebuild=args.rebuild,
        progress=lambda line: say(f"  {line}"),
    )
    print_record(bundle.manifest.name, record)
    if args.into_bundle:
        put_into_bundle(bundle, record, f"{record.spec.make_command(Path(bundle.path.name))} --into-bundle")
        say(f"stored in {bundle.path}")
    return 0


def quantise_first(bundle: "Bundle", spec: "EngineSpec", args: argparse.Namespace) -> bool:
    """Choose the layers that compute in int8, where they are needed and not chosen yet or asked for anew.

    Raises:
        InputError: arguments for int8 with another precision, or on a GPU.
        EngineError: the precision is not accepted.
    """
    from ndp_rt.errors import EngineError, InputError
    from ndp_rt.program.manifest import INT8_PRECISIONS

    given = [f"--{name.replace('_', '-')}" for name in QUANTISE_ARGUMENTS if getattr(args, name) is not None]
    if spec.precision not in INT8_PRECISIONS or spec.is_on_gpu:
        if given:
            raise InputError(
                f"expected --precision int8 or mixed on a CPU with {', '.join(given)}, got {spec.precision} for "
                f"{spec.backend}. On a GPU int8 has the bundle's layers (ndp-rt quantise)."
            )
        return False
    if bundle.int8_limits(spec.precision) and not given:
        return False
    found = quantise(bundle, args, None)
    if spec.precision not in found.choices:
        raise EngineError(f"{spec.precision}: not accepted: {found.refused[spec.precision]}")
    return True


def make_spec(args: argparse.Namespace) -> "EngineSpec":
    """Return which engines the arguments mean."""
    from ndp_rt.engines.registry import choose_backend, find_backend, parse_device
    from ndp_rt.engines.spec import CPU, EngineSpec

    if args.backend is None:
        device = args.device or CPU
        backend = choose_backend(parse_device(device)[0])
    else:
        backend = find_backend(args.backend)
        device = args.device or backend.devices[0]
    return EngineSpec(
        device=device,
        backend=backend.name,
        precision=args.precision,
        plan=args.plan,
        batches=args.batch,
        threads=args.threads,
        build=read_build_options(args, backend.name, backend.build_options),
    )


def read_build_options(
    args: argparse.Namespace, backend: str, options: type["BuildOptions"] | None
) -> "BuildOptions | None":
    """Return the build options that were given, or None if none were.

    Raises:
        InputError: the backend has no such option.
    """
    from ndp_rt.errors import InputError

    given = {}
    for flag, (field, names) in list_build_options().items():
        value = getattr(args, field.name)
        if value is None or value is False:
            continue
        if backend not in names:
            raise InputError(
                f"expected {flag} with --backend {' or '.join(names)}, got it with {backend}. Leave it out."
            )
        given[field.name] = value
    return options(**given) if options is not None and given else None


def print_record(name: str, record: "EngineRecord") -> None:
    """Print where the engines are, how they compute and how far they are from the golden vectors."""
    spec = record.spec
    took = f"{record.seconds * 1e3:.1f} ms" if record.seconds < 1 else f"{record.seconds:.1f} s"
    how = "cache hit" if record.was_cached else "built (cache miss)"
    key = record.entries[0].key
    say(f"{name}: {how}, {took}; {spec.backend} {key.backend_version}, {spec.precision}, plan {spec.plan}")
    if spec.is_on_gpu:
        options = f"; {', '.join(key.build_options)}" if key.build_options else ""
        driver = f", driver {key.driver_version}" if key.driver_version else ""
        say(f"for {key.device_model}, compute capability {key.compute_capability}{driver}{options}")
    _print_precisions(record.precision_by_layer_type())
    for batch in spec.batches or ():
        golden = next(entry.golden for entry in record.entries if entry.key.batch == batch)
        if not golden:
            say(f"golden vectors, batch {batch}: not compared on this machine; they are where an engine is opened")
            continue
        say(
            f"golden vectors, batch {batch}: {golden['vector_count']} agree; "
            f"map {golden['map_max_abs_difference']:.1e} (allowed {golden['map_tolerance']:.0e}), "
            f"score {golden['score_max_abs_difference']:.1e} (allowed {golden['score_tolerance']:.0e})"
        )
    for entry in record.entries:
        log = entry.document["notes"].get("log")
        log_note = f" (how it was built: {log})" if log else ""
        say(f"{entry.key.stage}, batch {entry.key.batch}: {entry.path}{log_note}")
    say(f"engine hash: {record.engine_hash[:16]}")


def _print_precisions(counts: Mapping[str, Mapping[str, int]]) -> None:
    from ndp_rt.cli.table import print_table

    active = {kind: found for kind, found in counts.items() if kind not in PASSIVE_LAYERS}
    precisions = sorted({precision for found in active.values() for precision in found})
    rows = [(kind, *(str(found.get(precision, "")) for precision in precisions)) for kind, found in active.items()]
    say("layers by effective precision")
    print_table(("layer type", *precisions), rows, right=precisions)
