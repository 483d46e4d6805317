"""How well other methods find defects, really fitted: `python -m ndp_rt.bench.fitted BUNDLE DATA... -o FILE`.

Each model is fitted to the good training images of each folder, runs as `ndp-rt bench --fit` times it, and is evaluated
as `ndp-rt evaluate` does. Nothing is timed, so other work may go on beside it. A record is appended for each.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ndp_rt.bench.rivals.modules import FITTED
from ndp_rt.bench.timed.rival import TimedRival
from ndp_rt.bench.timed.service import measure_accuracy
from ndp_rt.bench.timed.spec import OTHER_NETWORK, TimedSpec
from ndp_rt.evaluate.record import append_record, start_record

FORMAT, FORMAT_VERSION = "ndp-rt fitted rival", 1
UNTOLD = ("notes", "runtime")  # facts that say nothing of a fit


def main(arguments: Sequence[str]) -> int:
    """Fit, evaluate and record every model on every folder."""
    parser = argparse.ArgumentParser(prog="python -m ndp_rt.bench.fitted", description=__doc__)
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="whose input size the models get")
    parser.add_argument("data", metavar="DATA", type=Path, nargs="+", help="folders in MVTec AD's layout")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help="append the records to this")
    parser.add_argument("--models", nargs="+", choices=FITTED, default=FITTED, help="anomalib's names (default: all)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: the libraries' choice")
    args = parser.parse_args(arguments)
    command = shlex.join(["python", "-m", "ndp_rt.bench.fitted", *arguments])
    for data in args.data:
        for model in args.models:
            record = start_record(FORMAT, FORMAT_VERSION, command) | {"model": model}
            spec = TimedSpec(
                name=model,
                word=f"anomalib:{model}",
                kind=OTHER_NETWORK,
                bundle=str(args.bundle),
                precision="fp32",
                batches=(1,),
                threads=args.threads,
                models_on="openvino",
                fit=str(data),
            )
            timed = TimedRival(spec)
            try:
                record["facts"] = {name: value for name, value in timed.opened.facts.items() if name not in UNTOLD}
                record["accuracy"] = accuracy = measure_accuracy(timed, data)
            finally:
                timed.close()
            append_record(record, args.out)
            areas = " / ".join(f"{accuracy[name]:.3f}" for name in ("image_rocauc", "pixel_rocauc", "aupro"))
            print(f"{data.name}: {model}: {areas}; fitted in {timed.opened.facts['fit_s']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
