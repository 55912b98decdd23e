"""How a transfer gets on, for people and programs: a bar where it takes more than a second, or a function of theirs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tclient._transport.limits import moved

_BAR_AFTER_S = 1.0

Wish = bool | Callable[[int, int], object]


def bar(
    name: str, total: int, *, done: int = 0, after_s: float = _BAR_AFTER_S, is_wanted: bool = True, stays: bool = False
) -> Any:
    """A bar of `total` bytes on a terminal or in a notebook, from a second on; it stays when all is done, or goes."""
    # Not needed before something takes long, and not free to import.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without widgets gets a bar of text, and no advice
        from tqdm.auto import tqdm

    return tqdm(
        total=total,
        initial=done,
        desc=name,
        unit="B",
        unit_scale=True,
        delay=after_s,
        leave=stays,
        disable=None if is_wanted else True,
    )


class Progress:
    """One transfer of `total` bytes. A context manager; `reach` is called with what is done, now and then.

    The wish says what becomes of it: True is a bar on a terminal, a function gets (done, total) in bytes.
    """

    def __init__(self, wish: Wish, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._tell = wish if callable(wish) else None
        self._moved = moved()
        self._may_show = wish is True
        self._bar: Any = None
        self._began = time.monotonic()

    def reach(self, done: int) -> None:
        """So many bytes are done."""
        self._moved()
        if self._tell is not None:
            self._tell(done, self._total)
        elif self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif self._may_show and done < self._total and time.monotonic() - self._began > _BAR_AFTER_S:
            self._bar = bar(self._what, self._total, done=done, after_s=0.0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
