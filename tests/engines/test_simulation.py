"""What must hold of placement and the directory however many engines there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import pytest

from tests.engines.simulation import ENGINES_PER_HOST, SESSIONS_PER_ENGINE, House, bytes_of_a_directory, serving
from tserver.engines.directory import Directory
from tserver.engines.fleet import Draining
from tserver.engines.placement import Load, choose, home
from tserver.errors import Exhausted, InvalidArgument, SessionLost


class Watched(Sequence[Load]):
    """Loads, and how many of them were looked at."""

    def __init__(self, count: int) -> None:
        self._loads = [Load(f"{number}", "cuda:0", free_bytes=1) for number in range(count)]
        self.looked_at = 0

    def __len__(self) -> int:
        return len(self._loads)

    @overload
    def __getitem__(self, index: int) -> Load: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Load]: ...
    def __getitem__(self, index: Any) -> Any:
        self.looked_at += 1
        return self._loads[index]

    def __iter__(self) -> Iterator[Load]:
        for load in self._loads:
            self.looked_at += 1
            yield load


@pytest.mark.parametrize(("engines", "at_most"), [(8, 1.01), (16, 1.25), (64, 1.3), (160, 1.3)])
def test_sessions_are_spread_evenly_though_fronts_know_old_numbers(engines: int, at_most: float) -> None:
    house = House(engines)
    house.fill(engines * SESSIONS_PER_ENGINE)
    assert 1 <= house.evenness() <= at_most


def test_a_host_that_goes_costs_its_sessions_and_no_others() -> None:
    house = House(64)
    house.fill(64 * SESSIONS_PER_ENGINE)
    before = {name: engine.sessions for name, engine in house.engines.items()}
    lost, messages, _ = house.lose(3)
    of_the_host = [name for name in before if name not in house.engines]
    assert len(of_the_host) == ENGINES_PER_HOST
    assert lost == sum(before[name] for name in of_the_host)
    assert sum(engine.sessions for engine in house.engines.values()) == sum(before.values())
    assert all(house.engines[name].sessions >= before[name] for name in house.engines)
    assert house.evenness() < 1.3
    # Each of its clients asks, opens and is passed on; each front is told of each engine.
    assert messages <= 3 * lost + ENGINES_PER_HOST * len(house.fronts)


def test_a_placement_looks_at_no_more_engines_when_there_are_many_more() -> None:
    few, many = Watched(32), Watched(1000)
    choose(few)
    choose(many)
    assert max(few.looked_at, many.looked_at) <= 32


def test_the_last_engine_that_takes_sessions_is_found_among_many() -> None:
    loads = [Load(f"{number}", "cuda:0", takes_sessions=number == 617) for number in range(1000)]
    assert choose(loads).engine == "617"
    loads[617].takes_sessions = False
    with pytest.raises(Exhausted, match="no engine takes sessions"):
        choose(loads)


def test_of_many_engines_those_of_the_wished_device_are_looked_at() -> None:
    loads = [Load(f"{number}", f"cuda:{number}") for number in range(1000)]
    assert choose(loads, "cuda:617").engine == "617"
    with pytest.raises(InvalidArgument, match="cuda:1000"):
        choose(loads, "cuda:1000")


def test_an_engine_without_room_gets_no_session_while_others_have_some() -> None:
    loads = [Load(f"{number}", "cuda:0", free_bytes=1000 if number % 8 else 10) for number in range(100)]
    chosen = [choose(loads) for _ in range(300)]
    # Thirteen lack room, and more than that are looked at.
    assert all(load.free_bytes == 1000 for load in chosen)


def test_an_engine_that_has_said_nothing_yet_has_room() -> None:
    loads = [Load("0", "cpu", free_bytes=1000, sessions=3), Load("1", "cpu")]
    assert choose(loads).engine == "1"


def test_when_an_engine_goes_only_its_own_principals_move() -> None:
    engines = [f"{number}" for number in range(100)]
    principals = [f"principal {number}" for number in range(1000)]
    before = {principal: home(engines, principal) for principal in principals}
    gone = before["principal 0"]
    after = {principal: home([name for name in engines if name != gone], principal) for principal in principals}
    assert {principal for principal in principals if before[principal] != after[principal]} == {
        principal for principal in principals if before[principal] == gone
    }
    # Other fronts list the same engines in another order.
    assert all(home(reversed(engines), principal) == before[principal] for principal in principals[:100])


def test_a_directory_grows_with_the_engines_and_not_with_their_square() -> None:
    assert bytes_of_a_directory(1000) < 1.5 * 4 * bytes_of_a_directory(250)


def test_a_session_is_found_by_its_secret_among_many_and_told_why_its_engine_ended() -> None:
    house = House(64)
    directory = house.fronts[0].directory
    secret = bytes.fromhex(f"{42:016x}") + bytes(16)
    assert directory.of_secret(secret).info == serving(house.engines["42"])
    house.lose(42 // ENGINES_PER_HOST)
    with pytest.raises(SessionLost, match="its host is gone"):
        directory.of_secret(secret)


def test_an_engine_of_a_drained_host_keeps_its_sessions_and_gets_no_more() -> None:
    directory: Directory = House(2).fronts[0].directory
    directory.note(Draining("0", "the host is drained"))
    loads = [entry.load for entry in directory.engines.values()]
    assert {choose(loads).engine for _ in range(8)} == {"1"}
    assert directory.of_secret(bytes(24)).info.engine == "0"
