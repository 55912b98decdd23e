"""Draws calls of every operation, plays them on an engine in a child, and tells what must not happen.

    python -m tests.fuzz --seed NAME --calls 1000000 --minutes 60    looks for more; 1 is returned if anything was found
    python -m tests.fuzz --replay out/fuzz/FILE.json                 plays the calls of a finding again

A finding is a child that died or did not answer, memory shown that nobody wrote for the session, a tensor of another
session changed, a tensor held that reaches beyond its memory, or an engine that broke.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import time
from pathlib import Path

from tensorcompute.v1 import tensor_pb2 as pb
from tests.fuzz import served, texts, watch

_OUT = Path("out/fuzz")
# For one batch, on a machine that may have much else to do.
_SERVED_S = 300.0


def main() -> int:
    """What the command line says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", default="", help="a name; the same one draws the same calls (default: a new one)")
    parser.add_argument("--calls", type=int, default=1_000_000, help="calls to draw at most (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="minutes to take at most (default: %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=6, help="samples of each of torch's operators (default: %(default)s)"
    )
    parser.add_argument(
        "--hang-s",
        type=float,
        default=30.0,
        help="seconds of the processor that a call may take (default: %(default)s)",
    )
    parser.add_argument(
        "--tampering", type=float, default=0.3, help="share of sequences that tamper before a backward (default: 0.3)"
    )
    parser.add_argument(
        "--sparse", type=float, default=0.15, help="share of sequences with sparse tensors (default: 0.15)"
    )
    parser.add_argument(
        "--served", type=int, default=2000, help="calls to play on a real server (default: %(default)s)"
    )
    parser.add_argument("--only", default="", help="operations to draw, with commas between them (default: all)")
    parser.add_argument("--replay", type=Path, help="a file of calls to play again")
    options = parser.parse_args()
    watch.marked()
    if options.replay:
        return _replay(options.replay, options.hang_s)
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}", flush=True)
    watched = watch.Watch(
        seed,
        samples=options.samples,
        hang_s=options.hang_s,
        tampering=options.tampering,
        sparse=options.sparse,
        only=options.only,
    )
    began = time.monotonic()
    findings = 0
    for finding in watched.run(options.calls, options.minutes * 60):
        findings += 1
        _tell(finding, findings)
    took_s = time.monotonic() - began
    trouble = served.play(_some(watched.last, options.served), _SERVED_S)
    if trouble:
        findings += 1
        print(f"\n{trouble}")
    for name, seconds in sorted(watched.slow.items(), key=lambda item: -item[1])[:10]:
        print(f"slow: {name} took {seconds} s")
    print(
        f"seed {seed}: {watched.drawn} drawn calls, {watched.tampered} tampered backwards in {took_s:.0f} s "
        f"({watched.drawn / took_s:.0f} calls a second); {findings} findings"
    )
    return 1 if findings else 0


def _some(sequences: list[list[pb.Batch]], most: int) -> list[list[pb.Batch]]:
    """The first sequences, as far as they have about so many batches together."""
    counts = itertools.accumulate(map(len, sequences))
    return [sequence for sequence, count in zip(sequences, counts, strict=True) if count <= most]


def _tell(finding: watch.Finding, number: int) -> None:
    name = texts.last_name(finding.batches[-1]) if finding.batches else "none"
    path = _OUT / f"{finding.kind.replace(' ', '-')}-{name}-{number}.json"
    again = "" if finding.repeats else "; not again alone"
    print(f"\n{finding.kind}: {finding.detail} (sequence {finding.sequence}{again})")
    for batch in finding.batches[-40:]:
        print(f"  {texts.batch_text(batch)[:600]}")
    texts.save(path, f"{finding.kind}: {finding.detail}", finding.batches)
    print(f"  again: python -m tests.fuzz --replay {path}", flush=True)


def _replay(path: Path, hang_s: float) -> int:
    batches = texts.load(path)
    how = watch.Watch("replay", samples=1, hang_s=hang_s).again(batches)
    for batch in batches:
        print(f"  {texts.batch_text(batch)[:600]}")
    print(how or "nothing went wrong")
    return 1 if how else 0


if __name__ == "__main__":
    sys.exit(main())
