"""Reports the chosen layers as JSON values and as tables."""

from typing import TYPE_CHECKING, Any

from ndp_rt.quantise.figures import AREAS, DECISIONS, SURE
from ndp_rt.quantise.search import REST, WHY_SLOW, WHY_WRONG, Choice

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ndp_rt.quantise.figures import Figures
    from ndp_rt.quantise.run import Quantised

NOTES = {WHY_SLOW: "(slow)", WHY_WRONG: "(error)"}


def describe_choice(choice: Choice) -> dict[str, Any]:
    """Return a choice as JSON values."""
    rest = REST[choice.precision]
    whole = sum(layer.rest_ms for layer in choice.layers) + choice.other_ms["rest"]
    return {
        "figures": choice.figures.to_json(),
        "median_ms": {name: round(value, 3) for name, value in choice.median_ms.items()},
        "ratio": {name: round(value, 4) for name, value in choice.ratio.items()},
        "other_ms": {rest: round(choice.other_ms["rest"], 4), choice.precision: round(choice.other_ms["int8"], 4)},
        "layers": [
            {
                "name": layer.name,
                "precision": "int8" if layer.is_int8 else rest,
                "choice": layer.choice,
                f"{rest}_ms": round(layer.rest_ms, 4),
                "int8_ms": round(layer.int8_ms, 4),
                f"share_of_{rest}": round(layer.rest_ms / whole, 4) if whole else None,
                "map_error_alone": None if layer.map_error is None else round(layer.map_error, 6),
            }
            for layer in choice.layers
        ],
    }


def print_report(console: "Console", quantised: "Quantised") -> None:
    """Print the layers of every accepted precision, and the figures of the whole."""
    for choice in quantised.choices.values():
        console.print(_tabulate_layers(choice))
    console.print(_tabulate_figures(quantised))
    for precision, why in quantised.refused.items():
        console.print(f"{precision}: not accepted: {why}", markup=False)


def _tabulate_layers(choice: Choice) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    rest = REST[choice.precision]
    whole = sum(layer.rest_ms for layer in choice.layers) + choice.other_ms["rest"]
    caption = f"share: of the time in {rest}; error: of the map, where this layer alone is in int8"
    title = f"{choice.precision}: its layers"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("layer", no_wrap=True, min_width=max(len(layer.name) for layer in choice.layers))
    table.add_column("in", no_wrap=True)
    for title in (f"{rest} ms", "share", "int8 ms", "error"):
        table.add_column(title, justify="right", no_wrap=True)

    def add(name: str, computes: str, rest_ms: float, int8_ms: float, error: str) -> None:
        share = f"{rest_ms / whole:.1%}" if whole else ""
        table.add_row(escape(name), escape(computes), f"{rest_ms:.2f}", share, f"{int8_ms:.2f}", error)

    for layer in choice.layers:
        computes = "int8" if layer.is_int8 else f"{rest} {NOTES[layer.choice]}"
        error = "" if layer.map_error is None else f"{layer.map_error:.4f}"
        add(layer.name, computes, layer.rest_ms, layer.int8_ms, error)
    add("everything else", rest, choice.other_ms["rest"], choice.other_ms["int8"], "")
    return table


def _tabulate_figures(quantised: "Quantised") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    caption = (
        f"drop: below fp32's, ± {SURE:g} standard errors on the same images; decisions: wrong ones less right ones"
    )
    table = Table(
        "", title=escape(f"on up to {quantised.samples}"), caption=caption, title_justify="left", caption_justify="left"
    )
    for title in ("image ROCAUC, drop", "pixel ROCAUC, drop", "AUPRO, drop", "decisions", "map error", "ms", "of fp32"):
        table.add_column(title, justify="right")

    def add(name: str, figures: "Figures", median_ms: float, ratio: float) -> None:
        points = (f"{figures.areas[area]:.4f}\n{figures.drops[area]}" for area in AREAS)
        changed = f"{figures.flip_count} of {figures.image_count}\n{figures.drops[DECISIONS]}"
        table.add_row(
            name, *points, changed, f"{figures.map_max_abs_difference:.3f}", f"{median_ms:.1f}", f"{ratio:.2f}"
        )

    first = next(iter(quantised.choices.values()))
    for name, figures in quantised.floats.items():
        add(name, figures, first.median_ms[name], first.ratio["fp32"] / first.ratio[name])
    for name, choice in quantised.choices.items():
        add(name, choice.figures, choice.median_ms[name], choice.ratio["fp32"])
    return table
