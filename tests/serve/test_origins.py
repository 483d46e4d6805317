"""Pages of other sites do not reach a service through a browser; clients that are none, and proxies, do."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.serve.origins import check_host, check_site
from ndp_rt.serve.refusals import Refusal
from ndp_rt.serve.server import ServerOptions, _choose_check
from tests.serve.conftest import Served

EVIL = "http://evil.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8000"},
        {"host": "proxy", "origin": "https://proxy"},
        {"host": "[::1]:8000", "origin": "http://[::1]:8000"},
        {"host": "127.0.0.1:8000", "origin": "https://proxy.example", "sec-fetch-site": "same-origin"},
        {"host": "localhost", "sec-fetch-site": "none"},
    ],
)
def test_own_pages_and_other_clients_may_change_models(headers: dict[str, str]) -> None:
    check_site(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:9000"},
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_may_not(headers: dict[str, str]) -> None:
    with pytest.raises(Refusal, match="other site"):
        check_site({"host": "127.0.0.1:8000", **headers})


@pytest.mark.parametrize(
    "host", [None, "127.0.0.1:8000", "10.1.2.3", "[::1]:8000", "localhost:1", "LOCALHOST.", "a.localhost", "Proxy:443"]
)
def test_addresses_and_known_names_are_answered(host: str | None) -> None:
    check_host(host, ["proxy"])


@pytest.mark.parametrize(
    "host", ["", "evil.example:8000", "proxy.evil.example", "1.2.3.4.evil.example", "[::1", "x@evil"]
)
def test_foreign_names_are_not(host: str) -> None:
    with pytest.raises(Refusal, match="--allow-host"):
        check_host(host, ["proxy"])


def check_names(address: str, options: ServerOptions, *names: str) -> list[str]:
    """Return those of the names that a service at an address may be called by."""
    check, found = _choose_check(address, options), list[str]()
    for name in names:
        with contextlib.suppress(Refusal):
            if check is not None:
                check(name)
            found.append(name)
    return found


def test_hosts_are_checked_where_nothing_else_guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Box.plant.example")
    (tmp_path / "file").touch()
    files: dict[str, Any] = {"certificate": tmp_path / "file", "key": tmp_path / "file"}
    evil, own, short, given = "evil.example", "box.plant.example:8000", "box:8000", "a.b"
    names = (evil, own, short, given, "10.1.2.3:8000", "localhost")
    for address in ("127.0.0.1", "::1"):
        assert check_names(address, ServerOptions(allowed_hosts=("A.b",)), *names) == [*names[3:]]
    for address in ("0.0.0.0", "::", "10.1.2.3"):
        assert check_names(address, ServerOptions(allowed_hosts=("A.b",)), *names) == [*names[1:]]
        assert check_names(address, ServerOptions(), given, "", "[") == []
        for guarded in (ServerOptions(token="t"), ServerOptions(**files)):
            assert check_names(address, guarded, *names) == [*names]


def test_a_service_on_this_machine_refuses_both(bundle_path: Path, cache: Path) -> None:
    with Served([str(bundle_path), "--allow-host", "Proxy.example"], cache) as one:
        path = "/v2/repository/models/tiny/unload"
        assert one.ask("POST", path, origin=EVIL, sec_fetch_site="cross-site")[0] == 403
        for asked in ("/page/models", "/v2/models/tiny", "/metrics"):
            assert one.ask("GET", asked, host="evil.example:8000")[0] == 403
            for host in ("proxy.example", "localhost:8000"):
                assert one.ask("GET", asked, host=host)[0] == 200
        assert one.ask("GET", "/v2/health/live", host="evil.example")[0] == 200
        assert one.ask("POST", path)[0] == 200
        assert one.stop() == 0
