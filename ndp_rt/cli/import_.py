"""`ndp-rt import`: an ONNX model of another program in, a bundle out."""

import argparse
from pathlib import Path

from ndp_rt.cli.terminal import say

DESCRIPTION = """\
Turn an ONNX model that gives an anomaly map or a score into a bundle, which every command takes. The model runs once,
in ONNX Runtime, in a process of its own: what it gives there is what every engine is held to.
"""
DETAILS = """\
Next: ndp-rt set-threshold NAME.ndp --calibrate GOOD, and ndp-rt inspect. docs/import.md says which models are taken.
"""


def parse_size(text: str) -> tuple[int, int]:
    """Read a size such as "256" or "256x320", height first."""
    height, _, width = text.lower().partition("x")
    if not height.isdecimal() or not (width or height).isdecimal() or "0" in (height, width):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels such as 256x320, got {text!r}")
    return int(height), int(width or height)


def parse_numbers(text: str) -> tuple[float, ...]:
    """Read numbers such as "0.485,0.456,0.406"."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.485,0.456,0.406, got {text!r}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the model; its weights may lie beside it")
    parser.add_argument("-o", "--output", type=Path, metavar="NAME.ndp", required=True, help="the bundle to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle of that name")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("anomalib",),
        help="what wrote the model: its normalised and clipped end is taken off, so that the score is the raw one",
    )
    parser.add_argument("--image", metavar="INPUT", help="the image's name; default: the model's one input")
    parser.add_argument(
        "--map",
        metavar="OUTPUT|difference:OUTPUT",
        help="the map's name, or that of a picture whose difference from the image is the map; default: the output "
        "that looks like one",
    )
    parser.add_argument(
        "--score",
        metavar="RULE|OUTPUT",
        help="max or top_k_mean:K, of the map, or an output; default: the model's own, max if it has none",
    )
    parser.add_argument("--size", type=parse_size, metavar="HxW", help="the image's size, where it is open")
    parser.add_argument("--layout", choices=("nchw", "nhwc"), help="default: by the axis that has 1 or 3 values")
    parser.add_argument("--colour", choices=("rgb", "bgr", "grey"), default="rgb", help="default: rgb")
    parser.add_argument("--scale", type=int, choices=(1, 255), default=1, help="what white is; default: 1")
    parser.add_argument("--mean", type=parse_numbers, default=(), metavar="R,G,B", help="subtracted; default: none")
    parser.add_argument("--std", type=parse_numbers, default=(), metavar="R,G,B", help="divided by; default: none")
    parser.add_argument("--golden", type=Path, metavar="DIR", help="images for the golden vectors; default: noise")


def run(args: argparse.Namespace) -> int:
    """Import, and print what was made of the model."""
    from ndp_rt.importing import ImportSettings, import_onnx
    from ndp_rt.importing.terms import Convention

    convention = Convention(colour=args.colour, scale=args.scale, mean=args.mean, std=args.std)
    settings = ImportSettings(
        image=args.image,
        map=args.map,
        score=args.score,
        size_px=args.size,
        layout=args.layout,
        convention=convention,
        source=args.source,
        golden=args.golden,
        overwrite=args.overwrite,
        command=f"ndp-rt import {args.model.name} -o {args.output.name}",
    )
    done = import_onnx(args.model, args.output, settings)
    image, rules = done.image, done.bundle.manifest.decision
    rule = {"top_k_mean": f"top_k_mean:{rules.k}", "output": "the model's own"}.get(rules.score, rules.score)
    say(f"image   {image.name}: {image.height_px}x{image.width_px}, {image.channels} channels, {image.layout}")
    say(f"score   {done.result}, without a map" if done.is_score_alone else f"map     {done.result}; score: {rule}")
    for step in done.removed:
        say(f"removed {step}")
    for words in done.unused:
        say(f"unused  {words}")
    if done.score_difference is not None:
        say(f"its own score differs from the map's by at most {done.score_difference:.3g} on the golden images")
    if rules.score == "output":
        say("its map gets a threshold of its own, which defects reach, by set-threshold --calibrate")
    if not done.batches:
        say("takes one image at a time: build it with --batch 1 alone")
    say(f"wrote {done.bundle.path}. Next: ndp-rt set-threshold {args.output} --calibrate GOOD")
    return 0
