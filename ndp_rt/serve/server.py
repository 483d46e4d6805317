"""The service's process: its ports, its start, and its stop that loses no request which was accepted."""

import asyncio
import contextlib
import ctypes
import ipaddress
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import uvicorn

from ndp_rt.errors import InputError
from ndp_rt.serve.connections import CONNECTION_COUNT, HEAD_S, BoundedListener, BoundedProtocol
from ndp_rt.serve.grpc_face import GrpcFace
from ndp_rt.serve.http_face import HttpFace
from ndp_rt.serve.metrics import Metrics
from ndp_rt.serve.models import Models
from ndp_rt.serve.origins import check_host
from ndp_rt.serve.service import Service

log = logging.getLogger("ndp_rt")

CALL_COUNT = 256  # at once, over gRPC
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_S = 60.0  # for what was accepted
ARENA_MAX, ARENA_COUNT = -8, 2  # glibc's M_ARENA_MAX, and how many heaps all threads share


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where a service listens, and to whom.

    Attributes:
        port: of HTTP; 0: a free one.
        grpc_port: of gRPC; 0: a free one; None: no gRPC.
        body_bytes: of a request at most.
        token: that requests have to bring; None: none.
        certificate: and `key`, PEM files: TLS on both ports.
        client_ca: a PEM file; clients have to show a certificate that it has signed.
        has_page: whether the page for people is at /.
        allowed_hosts: names that a service without token and TLS may be called by, besides those of `check_host`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    body_bytes: int = 2**26
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    has_page: bool = True
    allowed_hosts: tuple[str, ...] = ()

    @property
    def shown_host(self) -> str:
        """The host as it stands before a port."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("--tls-certificate and --tls-key: expected both or none, got one.")
        if self.client_ca is not None and self.certificate is None:
            raise InputError("--tls-client-ca: expected --tls-certificate and --tls-key beside it, got neither.")
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise InputError(f"{path}: expected a PEM file, got none.")


class HttpServer(uvicorn.Server):
    """uvicorn's server, which leaves signals to us: they stop gRPC and the models too."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn's own `startup` lets a TLS handshake take 60 s."""
        loop, self.servers = asyncio.get_running_loop(), []
        for one in sockets or ():
            server = await loop.create_server(
                lambda: BoundedProtocol(self.config, self.server_state, {}),
                sock=one,
                ssl=self.config.ssl,
                backlog=CONNECTION_COUNT,
                ssl_handshake_timeout=HEAD_S if self.config.ssl else None,
            )
            self.servers.append(server)
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


async def serve(models: Models, metrics: Metrics, options: ServerOptions, tell: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted.

    Args:
        models: not loaded yet; ports open first, and the service is ready when all are loaded and warm.
        metrics: that /metrics shows.
        options: where to listen.
        tell: shows a line.

    Raises:
        InputError: a port is in use, or a certificate cannot be used.
        NdpRtError: a model cannot be loaded.
    """
    share_heaps()
    service = Service(models, options.token)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        stop.set()
        for number in SIGNALS:  # a second one ends the process at once
            loop.remove_signal_handler(number)

    for number in SIGNALS:
        try:
            loop.add_signal_handler(number, ask_to_stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    scheme = "http" if options.certificate is None else "https"
    with _listen(options.host, options.port, has_tls=options.certificate is not None) as listening:
        check = _choose_check(listening.getsockname()[0], options)
        face = HttpFace(service, metrics, options.body_bytes, has_page=options.has_page, check_host=check)
        web = HttpServer(_configure(face, options))
        rpc, rpc_port = await _start_grpc(service, options)
        serving = asyncio.create_task(web.serve(sockets=[listening]))
        loading = asyncio.create_task(asyncio.to_thread(models.load_all))
        try:
            tell(f"{scheme.upper()} at {scheme}://{options.shown_host}:{listening.getsockname()[1]}")
            if rpc is not None:
                tell(f"gRPC at {options.shown_host}:{rpc_port}")
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({stopping, loading, serving}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done() and not stop.is_set():
                loading.result()
                service.is_started = True
                tell("ready")
                await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            tell("stopping")
        finally:
            service.is_stopping = True
            web.should_exit = True
            try:
                await asyncio.gather(serving, rpc.stop(STOP_S) if rpc is not None else asyncio.sleep(0))
            finally:
                await asyncio.to_thread(models.close)
                await asyncio.wait({loading})
                loading.exception()  # it was raised, or comes of the stop


def _choose_check(address: str, options: ServerOptions) -> Callable[[str | None], None] | None:
    """Return what refuses names that a service may not be called by; None: any may.

    A browser that another site has led here has no token, and refuses the certificate.
    """
    if options.token is not None or options.certificate is not None:
        return None
    names = {one.lower() for one in options.allowed_hosts}
    is_alone = ipaddress.ip_address(address).is_loopback
    if not is_alone:
        names.add(socket.gethostname().lower())
    return partial(check_host, names=names, takes_short=not is_alone)


def share_heaps() -> None:
    """Let all threads of this process share a few of glibc's heaps.

    Else each new thread gets one of its own, up to eight a core, and keeps the freed memory in it. gRPC starts threads
    after hours, so that a service grows by steps without a leak. No other C library has the option.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, ARENA_COUNT)


@contextlib.contextmanager
def _listen(host: str, port: int, *, has_tls: bool = False) -> Iterator[socket.socket]:
    """Give a socket that listens.

    Raises:
        InputError: the port is in use, or not this user's, or there is no such host.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # By its protocol asyncio knows it for TCP and sends at once (TCP_NODELAY); an answer took 40 ms more otherwise.
        kind = BoundedListener if has_tls else socket.socket
        listening = kind(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        with contextlib.ExitStack() as stack:
            stack.enter_context(listening)
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(CONNECTION_COUNT)
            stack.pop_all()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--port {port}: cannot listen at {host} ({error}). Choose another --port or --host."
        ) from error
    with listening:
        yield listening


def _configure(face: HttpFace, options: ServerOptions) -> uvicorn.Config:
    """Return uvicorn's settings.

    Raises:
        InputError: a certificate cannot be used.
    """
    config = uvicorn.Config(
        face.app,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=CONNECTION_COUNT,
        timeout_graceful_shutdown=int(STOP_S),
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
        ssl_ca_certs=None if options.client_ca is None else str(options.client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if options.client_ca is None else ssl.CERT_REQUIRED,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"{options.certificate}, {options.key}: expected PEM files that go together ({error})."
        ) from error
    return config


async def _start_grpc(service: Service, options: ServerOptions) -> tuple[grpc.aio.Server | None, int]:
    """Return a started server and its port.

    Raises:
        InputError: the port is in use.
    """
    if options.grpc_port is None:
        return None, 0
    server = grpc.aio.server(
        maximum_concurrent_rpcs=CALL_COUNT,
        options=[
            ("grpc.max_receive_message_length", options.body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.optimization_target", "latency"),  # a trivial call with 200 kB took 0.09 ms less of 1.2
        ],
    )
    server.add_generic_rpc_handlers((GrpcFace(service, options.body_bytes).handler,))
    address = f"{options.shown_host}:{options.grpc_port}"
    try:
        if options.certificate is not None and options.key is not None:
            ca = None if options.client_ca is None else options.client_ca.read_bytes()
            pair = (options.key.read_bytes(), options.certificate.read_bytes())
            credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(
            f"--grpc-port {options.grpc_port}: cannot listen at {options.host}. Choose another."
        ) from error
    await server.start()
    return server, port
