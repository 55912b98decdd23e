"""One side of a comparison as a process of its own: it waits for orders on stdin and answers with figures on stdout.

Every workload file ends with `serve({...})` and names its sides there. An order is a JSON object on one line, its
`repetitions` says how often; the answer is `{"figures": [...]}` in the unit of the workload, or `{"error": text}`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TextIO

Order = dict[str, Any]
Run = Callable[[Order], list[float]]


@dataclass(frozen=True)
class Options:
    """What a side is started with."""

    address: str = ""
    threads: int = 1
    more: dict[str, Any] = field(default_factory=dict)


MakeSide = Callable[[Options], AbstractContextManager[Run]]


def serve(sides: Mapping[str, MakeSide]) -> None:
    """Run the side that the command line names until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=sorted(sides))
    parser.add_argument("--address", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--more", type=json.loads, default={})
    arguments = parser.parse_args()
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    options = Options(arguments.address, arguments.threads, arguments.more)
    try:
        with sides[arguments.side](options) as run:
            print(json.dumps({"ready": True}), file=answers)
            for line in sys.stdin:
                print(json.dumps({"figures": run(json.loads(line))}), file=answers)
    except Exception:
        _fail(answers)


def _fail(answers: TextIO) -> None:
    print(json.dumps({"error": traceback.format_exc()}), file=answers)
    # Threads of a broken client may never end by themselves.
    os._exit(1)
