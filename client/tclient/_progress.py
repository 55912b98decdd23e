"""How a transfer gets on, for people and programs: a bar where it takes more than a second, or a function of theirs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from tclient._limits import moved
from tclient._session import Session

_BAR_AFTER_S = 1.0


class Progress:
    """One transfer of `total` bytes. A context manager; `reach` is called with what is done, now and then.

    `session.progress` says what becomes of it: True is a bar on a terminal, a function gets (done, total) in bytes.
    """

    def __init__(self, session: Session, what: str, total: int) -> None:
        self._what, self._total = what, total
        wish = session.progress
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
            # Not needed before something takes long, and not free to import.
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total, initial=done, desc=self._what, unit="B", unit_scale=True, leave=False, disable=None
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
