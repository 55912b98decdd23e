"""What torch is here and what it sees, as a line of JSON: run as a process of its own, which may end as torch likes."""

from __future__ import annotations

import json
from typing import Any

import torch

from tserver.engine.device import device_status
from tserver.engine.packed import run_plain


def report() -> dict[str, Any]:
    """The versions, the devices with their memory, and whether calls are run by compiled code."""
    return {
        "torch": torch.__version__,
        # What torch was built for; empty is nothing but the CPU.
        "cuda": torch.version.cuda or "",
        "devices": [
            {"name": each.name, "what": each.description, "total": each.total_bytes, "free": each.free_bytes}
            for each in device_status()
        ],
        "is_compiled": run_plain is not None,
    }


if __name__ == "__main__":
    print(json.dumps(report()))
