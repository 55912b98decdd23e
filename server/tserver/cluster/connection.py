"""Ray, as far as it is there: imported late, connected to, and what is wrong with it said in words."""

from __future__ import annotations

import logging
import platform
import re
import time
from typing import Any

_PAUSE_S = 1.0


class ClusterError(Exception):
    """What a person is to be told; there is nothing wrong with the program."""


def connect(address: str, namespace: str, wait_s: float = 0.0) -> Any:
    """Connect to a Ray cluster, as its driver; the module ray. `address` is HOST:PORT; auto, which is the one of this
    host; or local, which is a new one that ends with this process.

    Raises: ClusterError.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError("clusters need Ray, which is not installed: pip install 'tclient[cluster]'") from error
    until = time.monotonic() + wait_s
    while True:
        try:
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
            )
            return ray
        except (ConnectionError, TimeoutError) as error:
            if time.monotonic() > until:
                raise ClusterError(
                    f"no Ray cluster can be reached at {address!r}: {_line(error)}; start one with `ray start --head`, "
                    "or give --ray-address its HOST:PORT, or local for one of this machine alone"
                ) from error
            time.sleep(_PAUSE_S)
        except (RuntimeError, ValueError) as error:
            raise ClusterError(mismatch(str(error), ray.__version__) or f"Ray: {_line(error)}") from error


def mismatch(said: str, ray_version: str) -> str:
    """What Ray's complaint of another version comes to; empty if it is none.

    It names the cluster's version of Ray and of Python first, and then those of this process.
    """
    if "ersion mismatch" not in said:
        return ""
    rays, pythons = re.findall(r"Ray: (\S+)", said), re.findall(r"Python: (\S+)", said)
    theirs = f"Ray {rays[0]} on Python {pythons[0]}" if rays and pythons else "another version"
    here = f"Ray {ray_version} on Python {platform.python_version()}"
    remedy = f"pip install ray=={rays[0]} here" if rays and rays[0] != ray_version else "use that Python here"
    return f"the cluster has {theirs}, and here is {here}, which must be the same; {remedy}, or start Ray with these"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
