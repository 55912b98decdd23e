"""N1: a session that adds and reads, beside eight that do all they can on the same engine.

The yardstick is the same session while the others rest. The neighbours are threads of one process with a session each;
what each of them does is a row, and in the last they do one of everything. No kernel of theirs takes longer than about
a millisecond, but for the row that says so: one kernel is never interrupted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .bench import Bench
from .processes import side
from .side import Options, Order, Run, serve
from .stats import Bar, Figures, Row
from .w2_round_trip import with_tclient

if TYPE_CHECKING:
    from tclient import Session

MODULE = __name__
NEIGHBOURS = 8
BAR = Bar("at most", (10,))
BULK_BYTES = 4 << 20
KINDS = ("adds", "uploads", "downloads", "reads", "products", "texts", "sorts", "functions", "views", "models")
# Kernels that no slice can be cut out of, and texts, which take long in all: reported.
LONG = ("long products", "long sorts", "long texts", "long views")


def measure(bench: Bench, kinds: Sequence[str] = (*KINDS, "mixed", *LONG)) -> Iterator[Row]:
    """A row for each kind of neighbour."""
    rounds, repetitions = bench.choose(6, 3), bench.choose(200, 60)
    for kind in kinds:
        with (
            bench.server() as server,
            side(MODULE, "polite", address=server.address) as polite,
            side(MODULE, "neighbours", address=server.address, more={"kind": kind}) as neighbours,
        ):
            busy, idle = Figures(f"beside {kind}", "µs"), Figures("alone", "µs")
            few = repetitions if kind not in LONG else 10
            polite.run({"repetitions": repetitions})
            for _ in range(rounds if kind not in LONG else 2):
                idle.rounds.append(polite.run({"repetitions": repetitions}))
                neighbours.run({"work": 1})
                busy.rounds.append(polite.run({"repetitions": few}))
                neighbours.run({"work": 0})
        what = f"an add and its read beside {NEIGHBOURS} sessions: {kind}"
        yield Row("N1", what, busy, idle, BAR if kind not in LONG else None)


class Neighbour:
    """One session that works, or rests."""

    def __init__(self, address: str, kind: str) -> None:
        import tclient

        self._session = tclient.Session.open(address)
        self._works = threading.Event()
        self._began = threading.Semaphore(0)
        self._rests = threading.Event()
        self._failure: BaseException | None = None
        with self._session.use():
            self._step = STEPS[kind](self._session)
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self) -> None:
        """Work until told to rest."""
        self._rests.clear()
        self._works.set()
        self._began.acquire(timeout=5)
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Rest."""
        self._works.clear()

    def wait(self) -> None:
        """Until it rests."""
        if not self._rests.wait(120):
            raise TimeoutError("a neighbour does not come to rest")
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._session.use():
                while True:
                    self._works.wait()
                    self._step()
                    self._began.release()
                    while self._works.is_set():
                        self._step()
                    self._session.synchronize()
                    self._rests.set()
        except BaseException as failure:
            self._failure = failure
            self._began.release()
            self._rests.set()


Step = Callable[[], object]


def _adds(session: Session) -> Step:
    import tclient

    x = tclient.ones(4)

    def step() -> None:
        y = x
        for _ in range(1000):
            y = y + x
        y.tolist()

    return step


def _uploads(session: Session) -> Step:
    import numpy as np

    import tclient

    array = np.ones(BULK_BYTES // 4, np.float32)
    return lambda: tclient.tensor(array)


def _downloads(session: Session) -> Step:
    import tclient

    x = tclient.ones(BULK_BYTES // 4)
    return x.numpy


def _reads(session: Session) -> Step:
    import tclient

    x = tclient.ones(4)
    return lambda: (x + x).tolist()  # noqa: PLW0108 - it is to add each time


def _products(side_length: int, count: int) -> Callable[[Session], Step]:
    def make(session: Session) -> Step:
        import tclient

        x = tclient.ones(side_length, side_length)

        def step() -> None:
            y = x
            for _ in range(count):
                y = x @ x
            y[0, 0].item()

        return step

    return make


def _texts(elements: int) -> Callable[[Session], Step]:
    def make(session: Session) -> Step:
        import tclient

        x = tclient.rand(elements)
        tclient.set_printoptions(profile="full")
        return lambda: str(x)

    return make


def _sorts(elements: int) -> Callable[[Session], Step]:
    def make(session: Session) -> Step:
        import tclient

        x = tclient.rand(elements)

        def step() -> None:
            values = x
            for _ in range(4):
                values = x.sort().values
            values[0].item()

        return step

    return make


def _functions(session: Session) -> Step:
    import tclient

    x = tclient.ones(64)

    @tclient.compile
    def chain(x: Any) -> Any:
        for _ in range(2000):
            x = x * 0.5 + 1
        return x

    return lambda: chain(x)[0].item()  # noqa: PLW0108


def _views(parts: int) -> Callable[[Session], Step]:
    def make(session: Session) -> Step:
        import tclient

        x = tclient.ones(parts)
        return lambda: x.split(1)[0].item()  # noqa: PLW0108

    return make


def _models(session: Session) -> Step:
    import numpy as np

    import tclient

    name = f"neighbour-{threading.get_ident()}-{id(session)}"
    served = tclient.models.create(name, tclient.nn.MLP([784, 256, 128, 10], activation="relu"))
    rows = np.ones((32, 784), np.float32)
    return lambda: served(rows)


STEPS: dict[str, Callable[[Any], Step]] = {
    "adds": _adds,
    "uploads": _uploads,
    "downloads": _downloads,
    "reads": _reads,
    "products": _products(160, 50),
    "texts": _texts(1000),
    "sorts": _sorts(20_000),
    "functions": _functions,
    "views": _views(2000),
    "models": _models,
    "long products": _products(1000, 4),
    "long sorts": _sorts(4 << 20),
    "long texts": _texts(100_000),
    "long views": _views(1 << 18),
}


@contextlib.contextmanager
def with_neighbours(options: Options) -> Iterator[Run]:
    """Those beside it: `work` says whether they do."""
    kind = options.more["kind"]
    kinds = KINDS if kind == "mixed" else (kind,) * NEIGHBOURS
    neighbours = [Neighbour(options.address, kind) for kind in kinds[:NEIGHBOURS]]

    def run(order: Order) -> list[float]:
        for each in neighbours:
            if order["work"]:
                each.begin()
            else:
                each.end()
        if not order["work"]:
            for each in neighbours:
                each.wait()
        return []

    yield run


if __name__ == "__main__":
    serve({"polite": with_tclient, "neighbours": with_neighbours})
