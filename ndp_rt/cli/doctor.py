"""`ndp-rt doctor`: what this machine has and lacks."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = "Exit code: 0, whatever is missing; 1 if NAME.ndp is damaged."
    parser.add_argument(
        "bundle", metavar="NAME.ndp", type=Path, nargs="?", help="also verify this bundle and list its engines"
    )


def run(args: argparse.Namespace) -> int:
    """Print a table of what was found."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ndp_rt.cli.machine_report import FOUND, examine_bundle, examine_machine
    from ndp_rt.errors import BundleError

    findings, problem = examine_machine(), None
    try:
        findings += examine_bundle(args.bundle) if args.bundle is not None else []
    except BundleError as error:
        problem = error  # the machine's findings are printed all the same
    table = Table(box=None, pad_edge=False)
    for heading in ("", "name", "state", "detail and remedy"):
        table.add_column(heading, overflow="fold")
    topic = ""
    for finding in findings:
        shown = finding.topic if finding.topic != topic else ""
        topic = finding.topic
        colour = "green" if finding.state == FOUND else "yellow"
        detail = escape(finding.detail) + (f"\n[bold]-> {escape(finding.remedy)}[/bold]" if finding.remedy else "")
        table.add_row(shown, escape(finding.name), f"[{colour}]{finding.state}[/{colour}]", detail)
    Console(highlight=False).print(table)
    if problem is not None:
        raise problem
    return 0
