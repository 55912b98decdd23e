"""torch's search for NaN in backward passes. It is a setting of the whole server, so that a program here only notes it.

Knows no tensors.
"""

from __future__ import annotations

import warnings

_state = {"enabled": False, "check_nan": True}


def is_anomaly_enabled() -> bool:
    """Whether this program asked for it."""
    return _state["enabled"]


def is_anomaly_check_nan_enabled() -> bool:
    """Whether this program asked for it to look for NaN."""
    return _state["check_nan"]


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """Note it, and warn that the server does not do it."""
    if mode:
        warnings.warn(
            "anomaly detection is a setting of the whole server, which other sessions share: it stays off. To find "
            "where numbers go wrong, look with x.isnan().any()",
            stacklevel=3,
        )
    _state.update(enabled=mode, check_nan=check_nan)


class set_detect_anomaly:
    """Note that anomalies are to be found; as a context manager, until its end."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = (_state["enabled"], _state["check_nan"])
        set_anomaly_enabled(mode, check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        _state.update(enabled=self._before[0], check_nan=self._before[1])


class detect_anomaly:
    """Note that anomalies are to be found, within it."""

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan
        self._before = (False, True)

    def __enter__(self) -> None:
        self._before = (_state["enabled"], _state["check_nan"])
        set_anomaly_enabled(True, self._check_nan)

    def __exit__(self, *exc: object) -> None:
        _state.update(enabled=self._before[0], check_nan=self._before[1])
