"""`ndp-rt sign`: signs a bundle, for those who open it with --require-signature."""

import argparse
from pathlib import Path

from ndp_rt.cli.terminal import say

DETAILS = """\
Make a key, keep it to yourself, and give its public part to the machines that inspect:

  openssl genpkey -algorithm ed25519 -out key.pem
  openssl pkey -in key.pem -pubout -out key.pub
  ndp-rt sign NAME.ndp --key key.pem
  ndp-rt inspect NAME.ndp IMAGES -o OUT --require-signature key.pub

Sign last: set-threshold, set-reference, quantise and export make the signature worthless.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle; signature.json is put into it")
    parser.add_argument(
        "--key", metavar="FILE", type=Path, required=True, help="an Ed25519 private key, PEM or OpenSSH"
    )


def run(args: argparse.Namespace) -> int:
    """Sign, and say so."""
    from ndp_rt.editing import sign

    sign(args.bundle, args.key)
    say(f"{args.bundle}: signed with {args.key}")
    return 0
