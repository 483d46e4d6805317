"""`ndp-rt serve`: answers clients over HTTP and gRPC."""

import argparse
import asyncio
from pathlib import Path

from ndp_rt.cli import EXIT_OK
from ndp_rt.cli.engine_arguments import add_engine_arguments, engine_options, log_to_stderr
from ndp_rt.cli.terminal import say
from ndp_rt.errors import InputError

DETAILS = """\
The Open Inference Protocol (KServe v2), so that tritonclient and others talk to it: /v2/models/NAME/infer, and the same
over gRPC. MODEL is PATH, NAME=PATH or NAME:VERSION=PATH; a bundle's name is its folder's otherwise, its version 1.

Input: 'image', UINT8 or UINT16 [h, w], [h, w, 1 or 3] or [n, h, w, 1 or 3] in RGB; or 'encoded', BYTES [n]: files.
Outputs: score, threshold, is_defect, defects (JSON); map and mask where they are asked for by name. Parameters:
priority (1 comes first) and timeout (microseconds). Images that do not fit into the queue are refused at once (429).

A browser at the same port shows the last images with their defects, scores over time and drift (--no-page: none).
/v2/health/ready says 200 when every model is loaded and warm. /metrics is for Prometheus.
/v2/repository/models/NAME/load and .../unload load a bundle again from the disk, and unload it.
SIGTERM and Ctrl-C stop it after the requests that it has accepted.

It listens to this machine alone. Before --host opens it to others, set --token-file or the --tls options.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("models", metavar="MODEL", nargs="+", help="a bundle, as PATH, NAME=PATH or NAME:VERSION=PATH")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="of HTTP; 0: a free one (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=8001, help="of gRPC; 0: a free one (default: %(default)s)")
    parser.add_argument("--no-grpc", action="store_true", help="HTTP alone")
    parser.add_argument(
        "--queue", type=int, default=64, metavar="N", help="images that may wait (default: %(default)s)"
    )
    parser.add_argument("--max-body-mb", type=int, default=64, metavar="N", help="of a request (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="whose first line clients have to bring")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM: TLS on both ports")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM: its key")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="PEM: clients need certificates signed by it"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a full name by which clients call it, where there is neither a token nor TLS",
    )
    parser.add_argument("--no-page", action="store_true", help="leave out the page for people")
    parser.add_argument(
        "--require-signature", metavar="KEY", type=Path, help="a public key that bundles have to be signed with"
    )
    add_engine_arguments(parser)


def read_token(path: Path | None) -> str | None:
    """Return the first line of a file.

    Raises:
        InputError: it cannot be read, or the line is empty.
    """
    if path is None:
        return None
    try:
        token = path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file: {path} cannot be read: {error}.") from error
    if not token or not token.isascii() or not token.isprintable():
        raise InputError(f"--token-file: expected a token of ASCII letters in the first line of {path}, got another.")
    return token


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ndp_rt.inspector import Inspector
    from ndp_rt.serve.metrics import Metrics
    from ndp_rt.serve.models import Models
    from ndp_rt.serve.monitor import Monitor
    from ndp_rt.serve.server import ServerOptions, serve
    from ndp_rt.serve.sources import read_source

    for name in ("queue", "max_body_mb"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')}: expected a number from 1 on, got {getattr(args, name)}.")
    options = ServerOptions(
        host=args.host,
        port=args.port,
        grpc_port=None if args.no_grpc else args.grpc_port,
        body_bytes=args.max_body_mb * 2**20,
        token=read_token(args.token_file),
        certificate=args.tls_certificate,
        key=args.tls_key,
        client_ca=args.tls_client_ca,
        has_page=not args.no_page,
        allowed_hosts=tuple(args.allow_host),
    )
    log_to_stderr()
    metrics = Metrics()

    def open_bundle(path: Path) -> Inspector:
        return Inspector.open(path, require_signature=args.require_signature, **engine_options(args))

    models = Models(map(read_source, args.models), open_bundle, args.queue, metrics, Monitor())
    asyncio.run(serve(models, metrics, options, say))
    return EXIT_OK
