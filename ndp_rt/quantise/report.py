"""Reports the chosen layers as JSON values and as tables."""

from typing import TYPE_CHECKING, Any

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
                "map_error_alone": round(layer.map_error, 6),
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
        table.add_row(name, computes, f"{rest_ms:.2f}", share, f"{int8_ms:.2f}", error)

    for layer in choice.layers:
        computes = "int8" if layer.is_int8 else f"{rest} {NOTES[layer.choice]}"
        add(layer.name, computes, layer.rest_ms, layer.int8_ms, f"{layer.map_error:.4f}")
    add("everything else", rest, choice.other_ms["rest"], choice.other_ms["int8"], "")
    return table


def _tabulate_figures(quantised: "Quantised") -> "Table":
    from rich.table import Table

    table = Table("", title=f"on {quantised.samples}", title_justify="left")
    areas = "image ROCAUC", "pixel ROCAUC", "AUPRO"
    for title in (*areas, "decisions changed", "map error", "score error", "ms", "of fp32", "of bf16"):
        table.add_column(title, justify="right")

    def add(name: str, figures: "Figures", *times: str) -> None:
        points = (f"{one:.4f}" for one in (figures.image_rocauc, figures.pixel_rocauc, figures.aupro))
        errors = f"{figures.map_max_abs_difference:.3f}", f"{figures.score_max_abs_difference:.3f}"
        table.add_row(name, *points, f"{figures.flip_count} of {figures.image_count}", *errors, *times)

    first = next(iter(quantised.choices.values()))
    add("fp32", quantised.base, f"{first.median_ms['fp32']:.1f}")
    for name, choice in quantised.choices.items():
        ratios = (f"{choice.ratio[one]:.2f}" if one in choice.ratio else "" for one in ("fp32", "bf16"))
        add(name, choice.figures, f"{choice.median_ms[name]:.1f}", *ratios)
    return table
