"""Pages of other sites do not reach a service through a browser; clients that are none, and proxies, do."""

from pathlib import Path
from typing import Any

import pytest

from ndp_rt.serve.origins import check_host, check_site
from ndp_rt.serve.refusals import Refusal
from ndp_rt.serve.server import ServerOptions, _choose_hosts
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


def test_hosts_are_checked_where_nothing_else_guards(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files: dict[str, Any] = {"certificate": tmp_path / "file", "key": tmp_path / "file"}
    assert _choose_hosts("127.0.0.1", ServerOptions(allowed_hosts=("A",))) == ["a"]
    assert _choose_hosts("::1", ServerOptions()) == []
    cases: list[tuple[str, dict[str, Any]]] = [("0.0.0.0", {}), ("::", {}), ("127.0.0.1", {"token": "t"})]
    for address, options in [*cases, ("127.0.0.1", files)]:
        assert _choose_hosts(address, ServerOptions(**options)) is None


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
