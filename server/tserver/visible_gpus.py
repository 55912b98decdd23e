"""Which of the host's GPUs a process is shown. To be said before anything in it touches CUDA. Knows no torch.

An engine is shown the GPUs that it holds and no other, so it knows them as cuda:0, cuda:1 and so on, and torch itself
refuses another, in its own words.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace

from tserver.config import Config

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def show_own_gpus(config: Config, environment: MutableMapping[str, str]) -> Config:
    """Have this process see as many GPUs as its engine holds, from that of `device` on; the settings as it then sees.

    Which are there is not known here: of what is not, `choose_device` tells.
    """
    kind, _, number = config.device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdecimal()):
        return config
    first = int(number or 0)
    own = range(first, first + config.devices_per_engine)
    shown = environment.get(_VARIABLE)
    if shown is None:
        environment[_VARIABLE] = ",".join(map(str, own))
    else:
        # Others may have chosen already, by number or by name.
        environment[_VARIABLE] = ",".join(each.strip() for each in shown.split(",")[own.start : own.stop])
    return replace(config, device="cuda:0") if number else config
