"""Keeps pages of other sites from asking a service through the browser of somebody who may."""

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from ndp_rt.serve.refusals import Refusal

OWN_SITES = {"same-origin", "none"}  # none: typed into the browser


def check_site(headers: Mapping[str, str]) -> None:
    """Check that a request which changes something comes from no page of another site.

    Browsers say where such a request comes from, and pages cannot forge it; other clients say nothing.

    Raises:
        Refusal: it does.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_own = site in OWN_SITES
    else:  # browsers without it, and all of them where the service has neither TLS nor a name of this machine
        is_own = origin is None or origin.partition("://")[2] == headers.get("host")
    if not is_own:
        raise Refusal("forbidden", f"expected a request from no other site's page, got one from {origin or site}.")


def check_host(host: str | None, names: Collection[str], *, takes_short: bool = False) -> None:
    """Check that a client calls the service by no name that another site may have led here (DNS rebinding).

    Addresses are let through: only a name can lead to another machine later.

    Args:
        host: the header; None: none, which no browser does.
        names: besides localhost.
        takes_short: let names without a dot through, which only those who run the network give.

    Raises:
        Refusal: it is another name.
    """
    if host is None:
        return
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    name = name.rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return
    if takes_short and name and "." not in name:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise Refusal(
            "forbidden",
            f"host: expected localhost, an address or a name of --allow-host, got {host[:100]!r}. Call it by one of "
            "these, or start it with that --allow-host or with --token-file.",
        ) from None
