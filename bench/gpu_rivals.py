"""Rivals in `make gpu-check`: opened and checked like our own candidates, and timed in turn with them."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.latency import Latency
from ndp_rt.bench.peers.base import Peer, PeerRunner, open_checked
from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.decision import is_defective
from ndp_rt.errors import InputError, MissingExtraError, NdpRtError
from ndp_rt.evaluate.record import Record

Image = NDArray[np.uint8]


@dataclass(kw_only=True)
class Rival:
    """One rival in one precision, with a runner for each batch size, and what was measured of it."""

    name: str
    precision: str
    runners: dict[int, PeerRunner] = field(default_factory=dict)
    facts: Record = field(default_factory=dict)
    times_ms: dict[int, list[float]] = field(default_factory=dict)

    def close(self) -> None:
        """Free everything."""
        for runner in self.runners.values():
            runner.close()


def choose_peers(peers: Sequence[Peer], names: Sequence[str]) -> list[Peer]:
    """Return the peers of these names.

    Raises:
        InputError: there is none of that name.
    """
    known = {peer.name: peer for peer in peers}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"--against names {', '.join(unknown)}; {', '.join(known)} are taken.")
    return [known[name] for name in names]


def open_rivals(
    bundle: Bundle,
    peers: Sequence[Peer],
    precisions: Sequence[str],
    batches: Sequence[int],
    left_out: dict[str, str],
    refused: dict[str, str],
) -> list[Rival]:
    """Open every peer in every precision that it has; each is compared with the golden vectors first.

    Args:
        left_out: gets the peers that cannot run here, with what to install.
        refused: gets those that failed or answered wrongly, with the reason.
    """
    rivals = []
    for peer in peers:
        for precision in (one for one in precisions if one in peer.precisions):
            rival = Rival(name=peer.name, precision=precision)
            print(f"opening {peer.name} {precision}", flush=True)
            try:
                for batch in batches:
                    runner, check = open_checked(peer, bundle, precision, batch)
                    rival.runners[batch] = runner
                    rival.facts |= {"name": peer.name, "precision": precision, **runner.facts}
                    assert check.golden is not None  # each runs the bundle's own network
                    rival.facts["golden"] = dataclasses.asdict(check.golden)
                    rival.times_ms[batch] = []
            except NdpRtError as error:
                rival.close()
                which = left_out if isinstance(error, MissingExtraError) else refused
                which[f"{peer.name} {precision}"] = str(error)
                print(f"  not compared: {error}")
                continue
            rivals.append(rival)
    return rivals


def time_rival(rival: Rival, images: Sequence[Image], size: int, threshold: float, count: int) -> list[float]:
    """Return the milliseconds of `count` batches from host images to decisions, one after another."""
    runner, batch, times = rival.runners[size], list(islice(cycle(images), size)), []
    for _ in range(count):
        start = time.perf_counter()
        _, scores = runner.run(batch)
        for score in scores:
            is_defective(float(score), threshold)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def summarise_rival(rival: Rival) -> Record:
    """Return a rival's row of the record."""
    latency = {str(size): Latency.of(times).to_json() for size, times in rival.times_ms.items()}
    return {**rival.facts, "latency": latency}


def compare_with_rivals(rows: Sequence[Record], rivals: Sequence[Record]) -> dict[str, Record]:
    """Return, by precision and batch, how many times as fast our best p50 is as the best rival's."""
    found: dict[str, Record] = {}
    for key in sorted({(row["precision"], batch) for row in rows for batch in row["latency"]}):
        ours, theirs = (
            [
                (one["latency"][key[1]]["p50_ms"], one.get("backend") or one.get("name"))
                for one in group
                if one["precision"] == key[0] and key[1] in one["latency"]
            ]
            for group in (rows, rivals)
        )
        if ours and theirs:
            (our_ms, our_name), (their_ms, their_name) = min(ours), min(theirs)
            found[f"{key[0]} batch {key[1]}"] = {
                "ours": our_name,
                "ours_p50_ms": our_ms,
                "best_rival": their_name,
                "best_rival_p50_ms": their_ms,
                "times_as_fast": their_ms / our_ms,
            }
    return found
