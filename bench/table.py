"""A record of `ndp-rt bench` as a table on the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ndp_rt.evaluate.record import STAGES, Record


def print_record(console: Console, record: Record) -> None:
    """Print what was measured, what was not and why, and what may falsify it."""
    settings, bundle = record["settings"], record["bundle"]
    threads = "" if settings["threads"] is None else f", {settings['threads']} threads"
    console.print(
        f"{bundle['name']} (preset {bundle['preset']}, w = {bundle['width']}), {settings['device']}{threads}; "
        f"inside the clock: {settings['inside_the_clock']}",
        soft_wrap=True,
        markup=False,
    )
    if record["rows"]:
        console.print(f"{settings['scenario']}: {settings['scenario_means']}", soft_wrap=True)
        console.print(make_times(record["rows"]))
        for sentence in describe_percentiles(record["rows"]):
            console.print(sentence, soft_wrap=True, markup=False)
        console.print(make_work(record["rows"]))
        accuracy = make_accuracy(record["rows"])
        if accuracy is not None:
            console.print(accuracy)
        for sentence in describe_split(record["rows"]):
            console.print(sentence, soft_wrap=True, markup=False)
    for name in ("cold", "idle", "sweep"):
        if name in record:
            print_mode(console, name, record[name])
    notes = [(name, "left out", reason) for name, reason in record["left_out"].items()]
    notes += [(name, "refused", reason) for name, reason in record["refused"].items()]
    notes += [(row["name"], "note", text) for row in record["rows"] for text in row["notes"]]
    notes += [(row["name"], "warning", text) for row in record["rows"] for text in row["warnings"]]
    for name, kind, text in dict.fromkeys(notes):
        console.print(f"{name}: {kind}: {text}", soft_wrap=True, markup=False)
    for text in record["warnings"]:
        console.print(f"warning: {text}", soft_wrap=True, markup=False)


def start_table(headings: Sequence[str]) -> Table:
    """Return a table that fits 80 columns and cuts no number."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("contender", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def make_times(rows: Sequence[Record]) -> Table:
    """Return the rows' times."""
    table = start_table(["batch", "p50 ms", "p90", "p99", "cv", "images/s"])
    for row in rows:
        latency = row["latency"]
        table.add_row(
            escape(row["name"]),
            str(row["batch"]),
            *(f"{latency[name]:.4g}" for name in ("p50_ms", "p90_ms", "p99_ms")),
            f"{latency['cv']:.0%}",
            f"{row['images_per_s']:.4g}",
        )
    return table


def make_work(rows: Sequence[Record]) -> Table:
    """Return what stands beside the times: how many times as long as the first row's, error, work, ceiling, memory."""
    table = start_table(["batch", "x first (95 %)", "map error", "GFLOP", "ceiling", "MiB"])
    for row in rows:
        gflop, memory, ratio = row.get("gflop"), row.get("peak_memory_bytes"), row.get("ratio")
        table.add_row(
            escape(row["name"]),
            str(row["batch"]),
            "" if ratio is None else f"{ratio['median']:.3g} ({ratio['low']:.3g}-{ratio['high']:.3g})",
            f"{row['check']['map_max_abs_difference']:.1e}",
            "" if gflop is None else f"{gflop:.3g}",
            share(row.get("ceiling"), "share"),
            "" if memory is None else f"{memory / 2**20:.0f}",
        )
    return table


def make_accuracy(rows: Sequence[Record]) -> Table | None:
    """Return how well each contender finds defects, once for all batch sizes; None where nobody was asked."""
    found = {row["name"]: row["accuracy"] for row in rows if row.get("accuracy")}
    if not found:
        return None
    table = start_table(["image ROCAUC", "pixel ROCAUC", "AUPRO"])
    for name, accuracy in found.items():
        areas = (figure(accuracy.get(key)) for key in ("image_rocauc", "pixel_rocauc", "aupro"))
        table.add_row(f"{escape(name)}, {escape(accuracy['source'].partition(':')[0])}", *areas)
    return table


def describe_percentiles(rows: Sequence[Record]) -> Iterator[str]:
    """Return what MLPerf asks of the scenario, a sentence for each row."""
    for row in rows:
        one, server = row.get("percentile"), row.get("server")
        words = f"{row['name']}, batch {row['batch']}: "
        if server is not None:
            held = "is kept" if server["is_met"] else "is not kept"
            sure = "" if server["allowed_count"] >= 1 else " (in the sample; too few images to be sure of it)"
            yield (
                f"{words}{server['target_qps']:.4g} images/s arrive; {server['latency_bound_ms']:.4g} ms for 99 % of "
                f"them {held}{sure}"
            )
        elif one is not None and one["bound_ms"] is not None:
            yield (
                f"{words}the {one['share'] * 100:.0f}th percentile is {one['estimate_ms']:.4g} ms, and at most "
                f"{one['bound_ms']:.4g} ms with 99 % confidence"
            )
        elif one is not None:
            yield (
                f"{words}the {one['share'] * 100:.0f}th percentile is {one['estimate_ms']:.4g} ms in this sample; its "
                f"{one['query_count']} queries bound it not at all, {one['needed_count']} would: more --seconds"
            )


def describe_split(rows: Sequence[Record]) -> Iterator[str]:
    """Return the stages of an image, a sentence for each row that tells more than one apart."""
    for row in rows:
        stages = row.get("stages_ms") or {}
        if len(stages) > 1:
            parts = ", ".join(f"{name} {stages[name]:.3g}" for name in STAGES if name in stages)
            yield f"{row['name']}, batch {row['batch']}, an image's milliseconds: {parts}"


def print_mode(console: Console, mode: str, found: Mapping[str, Any]) -> None:
    """Print what the modes that have no rows measured."""
    console.print(f"{found['name']}:", markup=False)
    if mode == "cold":
        print_cold(console, found)
        return
    if mode == "idle":
        first, steady, ratio = found["first"], found["steady"], found["ratio"]
        console.print(
            f"the first image after {found['pause_s']:g} s takes {first['p50_ms']:.4g} ms (p50 of {first['count']}, "
            f"max {first['max_ms']:.4g}); one after another they take {steady['p50_ms']:.4g} ms: {ratio['median']:.2f} "
            f"times as long ({ratio['low']:.2f} to {ratio['high']:.2f}); map error "
            f"{found['check']['map_max_abs_difference']:.1e}",
            soft_wrap=True,
            markup=False,
        )
        return
    table = Table("series", found["axis"], "p50 ms", "p99", "images/s", "efficiency", "map error")
    for point in found["points"]:
        table.add_row(
            point.get("series", ""),
            str(point["value"]),
            f"{point['latency']['p50_ms']:.4g}",
            f"{point['latency']['p99_ms']:.4g}",
            f"{point['images_per_s']:.4g}",
            f"{point['efficiency']:.2f}",
            f"{point['check']['map_max_abs_difference']:.1e}",
        )
    console.print(table)
    for sentence in found["words"]:
        console.print(sentence, soft_wrap=True, markup=False)


def print_cold(console: Console, found: Mapping[str, Any]) -> None:
    """Print how long a start takes, part by part, and what the first image takes longer than later ones."""
    words = {"hit": "cached", "miss": "to be built"}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine", no_wrap=True)
    for heading in ("cached: p50 ms", "max", "to be built: p50 ms", "max"):
        table.add_column(heading, justify="right")
    parts = {part: {name: found[name]["parts"][part] for name in words} for part in found["hit"]["parts"]}
    for part, of in {**parts, "in all": {name: found[name]["total"] for name in words}}.items():
        table.add_row(part, *(f"{of[name][key]:.4g}" for name in words for key in ("p50_ms", "max_ms")))
    console.print(table)
    console.print(
        f"{found['hit']['count']} starts with the engine cached, {found['miss']['count']} with it to be built"
    )
    for name in words:
        ratio, following = found[name]["first_ratio"], found[name]["following"]
        console.print(
            f"engine {words[name]}: the first image takes {ratio['median']:.2f} times ({ratio['low']:.2f} to "
            f"{ratio['high']:.2f}) the {following['p50_ms']:.4g} ms of those after it",
            soft_wrap=True,
        )
    worst = max(found[name]["check"]["score_max_abs_difference"] for name in words)
    console.print(f"score error of the first decisions: {worst:.1e}")


def share(value: Mapping[str, Any] | None, name: str) -> str:
    """Return a share as percent, nothing where there is none."""
    return "" if not value or value.get(name) is None else f"{value[name]:.0%}"


def figure(value: float | None) -> str:
    """Return a ROC area, nothing where there is none."""
    return "" if value is None else f"{value:.3f}"
