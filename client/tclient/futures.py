"""torch.futures: values that come later, as Python's own futures keep them."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")


class Future(Generic[T]):
    """A value that somebody sets later."""

    def __init__(self, *, devices: Any = None) -> None:
        self._future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def done(self) -> bool:
        """Whether it has its value, or an exception."""
        return self._future.done()

    def wait(self) -> T:
        """The value, waited for. Raises what was set as an exception."""
        return self._future.result()

    def value(self) -> T:
        """The value of a future that is done. Raises: RuntimeError if it is not."""
        if not self.done():
            raise RuntimeError("The value is not ready: wait for it first")
        return self._future.result()

    def set_result(self, result: T) -> None:
        """Set the value, once. Raises: RuntimeError the second time."""
        if self.done():
            raise RuntimeError("Attempting to mark a completed Future as complete again")
        self._future.set_result(result)

    def set_exception(self, result: BaseException) -> None:
        """Set an exception in the place of the value."""
        self._future.set_exception(result)

    def add_done_callback(self, callback: Callable[[Future[T]], None]) -> None:
        """Call a function with this future when it is done; at once if it is."""
        self._future.add_done_callback(lambda _: callback(self))

    def then(self, callback: Callable[[Future[T]], S]) -> Future[S]:
        """The future of what a function makes of this one when it is done."""
        following: Future[S] = Future()

        def run(done: Future[T]) -> None:
            try:
                made = callback(done)
            except Exception as error:
                # As torch has it, whatever the callback raised.
                following.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
            else:
                following.set_result(made)

        self.add_done_callback(run)
        return following


def collect_all(futures: list[Future[Any]]) -> Future[list[Future[Any]]]:
    """The future of them all, done when each is."""
    together: Future[list[Future[Any]]] = Future()
    left = len(futures)

    def one_less(_: Future[Any]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            together.set_result(futures)

    if not futures:
        together.set_result(futures)
    for each in futures:
        each.add_done_callback(one_less)
    return together


def wait_all(futures: Iterable[Future[Any]]) -> list[Any]:
    """The values of them all, waited for."""
    return [each.wait() for each in futures]
