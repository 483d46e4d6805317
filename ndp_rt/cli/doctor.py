"""`ndp-rt doctor`: lists what this machine has and lacks."""

import argparse
from pathlib import Path

DETAILS = "Exit code: 0, whatever is missing; 1 if NAME.ndp is damaged."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "bundle", metavar="NAME.ndp", type=Path, nargs="?", help="also verify this bundle and list its engines"
    )


def run(args: argparse.Namespace) -> int:
    """Print a table of what was found."""
    from ndp_rt.cli.machine_report import FOUND, examine_bundle, examine_machine
    from ndp_rt.cli.table import paint, print_table
    from ndp_rt.errors import BundleError

    findings, problem = examine_machine(), None
    try:
        findings += examine_bundle(args.bundle) if args.bundle is not None else []
    except BundleError as error:
        problem = error  # the machine's findings are printed all the same
    rows, topic = [], ""
    for finding in findings:
        shown = finding.topic if finding.topic != topic else ""
        topic = finding.topic
        state = paint(finding.state, "green" if finding.state == FOUND else "yellow")
        rows.append((shown, finding.name, state, finding.detail))
        if finding.remedy:
            rows.append(("", "", "", f"-> {finding.remedy}"))
    print_table(("", "name", "state", "detail and remedy"), rows)
    if problem is not None:
        raise problem
    return 0
