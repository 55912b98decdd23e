"""The settings of traces and of the log, as the protocol's extensions for them name them.

Of traces they say which requests for inference are traced; where traces go, the server is told at its start. They hold
until it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tserver import logs
from tserver.errors import InvalidArgument, NotConfigured
from tserver.tracing.tracer import TRACER, Rate

Told = Mapping[str, Sequence[str]]
_OFF, _ON = "OFF", "TIMESTAMPS"
# One in so many, where nothing is said of that.
_RATE = 1000
_MOST = (1 << 31) - 1
# What cannot be changed, as it is.
_FIXED: Told = {"log_frequency": ["0"], "trace_file": [""], "trace_mode": ["opentelemetry"]}
_SETTABLE = ("trace_level", "trace_rate", "trace_count")


@dataclass(slots=True)
class _Chosen:
    """Which requests are traced: one in so many, and so many of them in all; -1 is all."""

    is_on: bool
    rate: int
    count: int = -1
    _one_in: Rate = field(init=False)

    def __post_init__(self) -> None:
        self._one_in = Rate(self.rate)

    def chooses(self) -> bool:
        """Whether this one is."""
        if not self.is_on or not self.count or not self._one_in.chooses():
            return False
        self.count -= self.count > 0
        return True


class TraceSettings:
    """Which requests for inference are traced, of all models and of each that has settings of its own."""

    def __init__(self, one_in: int) -> None:
        """As --trace-rate says."""
        self._begin = _Chosen(bool(one_in), one_in or _RATE)
        self._of_all = replace(self._begin)
        self._of_models: dict[str, _Chosen] = {}

    def chooses(self, model: str) -> bool:
        """Whether a request for that model, whose caller says nothing of it, is traced."""
        return TRACER.is_on and self._of(model).chooses()

    def told(self, model: str = "") -> Told:
        """What holds for a model, or for all others."""
        chosen = self._of(model)
        return {
            "trace_level": [_ON if chosen.is_on else _OFF],
            "trace_rate": [str(chosen.rate)],
            "trace_count": [str(chosen.count)],
            **_FIXED,
        }

    def change(self, settings: Told, model: str = "") -> None:
        """All of it, or nothing: an empty value is as it was at the start, or of a model as it is for all.

        Raises: InvalidArgument, NotConfigured.
        """
        now, default = self._of(model), self._of_all if model else self._begin
        is_on, rate, count = now.is_on, now.rate, now.count
        for name, values in settings.items():
            if name in _FIXED:
                if values and list(values) != _FIXED[name]:
                    raise InvalidArgument(
                        f"{name} is {_FIXED[name][0]!r} here, and stays so: traces go by OTLP to where --otlp-endpoint "
                        f"says; what can be changed is {', '.join(_SETTABLE)}"
                    )
            elif name == "trace_level":
                is_on = _level(values) if values else default.is_on
            elif name == "trace_rate":
                rate = _number(name, values, 1) if values else default.rate
            elif name == "trace_count":
                count = _number(name, values, -1) if values else default.count
            else:
                raise InvalidArgument(f"there is no setting {name[:100]!r} of traces, but {', '.join(_SETTABLE)}")
        if is_on and not TRACER.is_on:
            raise NotConfigured("traces go nowhere: start the server with --otlp-endpoint to have some")
        if model and all(name in _FIXED or not values for name, values in settings.items()):
            self._of_models.pop(model, None)
        elif model:
            self._of_models[model] = _Chosen(is_on, rate, count)
        else:
            self._of_all = _Chosen(is_on, rate, count)

    def _of(self, model: str) -> _Chosen:
        return self._of_models.get(model, self._of_all)


def _level(values: Sequence[str]) -> bool:
    for value in values:
        if value == "TENSORS":
            raise InvalidArgument("trace_level TENSORS is not served: traces tell of times, not of elements")
        if value not in (_OFF, _ON):
            raise InvalidArgument(f"trace_level {value[:100]!r} is none: {_OFF} or {_ON}")
    return _ON in values


def _number(name: str, values: Sequence[str], least: int) -> int:
    text = values[0]
    digits = text.removeprefix("-")
    number = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 11 else least - 1
    if len(values) > 1 or not least <= number <= _MOST:
        raise InvalidArgument(f"{name} {', '.join(values)[:100]!r} is not a whole number from {least} to {_MOST}")
    return number


_KINDS = {"log_info": "info", "log_warning": "warning", "log_error": "error"}
_LOG_FIXED = {"log_file": "", "log_format": "default"}


def log_told() -> dict[str, bool | int | str]:
    """What this process writes to its log."""
    shown = logs.shown()
    kinds: dict[str, bool | int | str] = {name: kind in shown for name, kind in _KINDS.items()}
    return {**_LOG_FIXED, **kinds, "log_verbose_level": int("debug" in shown)}


def change_log(settings: Mapping[str, object]) -> None:
    """Write other kinds of records, all of it or nothing. Raises: InvalidArgument."""
    shown = set(logs.shown())
    for name, value in settings.items():
        if name in _KINDS:
            if not isinstance(value, bool):
                raise InvalidArgument(f"{name} is {str(value)[:100]!r}, not true or false")
            kind, is_shown = _KINDS[name], value
        elif name == "log_verbose_level":
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidArgument(f"{name} is {str(value)[:100]!r}, not a whole number from 0 on")
            kind, is_shown = "debug", value > 0
        elif name in _LOG_FIXED:
            if value != _LOG_FIXED[name]:
                raise InvalidArgument(
                    f"{name} stays {_LOG_FIXED[name]!r} here: the log goes to stderr, formed as --log-format says"
                )
            continue
        else:
            names = ", ".join([*_KINDS, "log_verbose_level"])
            raise InvalidArgument(f"there is no setting {name[:100]!r} of the log, but {names}")
        (shown.add if is_shown else shown.discard)(kind)
    logs.show(frozenset(shown))
