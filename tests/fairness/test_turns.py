"""The order of turns, with time that is told and does not pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tserver.engine.shares import CREDIT_S, Share, Turns

SLICE_S = 0.005
MS = 0.001


@dataclass(eq=False)
class One:
    """Somebody who wants time: so many seconds at a time, for ever or a number of times."""

    name: str
    share: Share
    piece_s: float = SLICE_S
    had: list[float] = field(default_factory=list)


class Room:
    """Turns, and who takes them."""

    def __init__(self) -> None:
        self.turns: Turns[One] = Turns()
        self.now = 0.0

    def enter(self, name: str, principal: str = "p", piece_s: float = SLICE_S) -> One:
        one = One(name, self.turns.share(principal), piece_s)
        self.turns.add(one)
        return one

    def serve(self, *, again: bool = True) -> One:
        """One turn."""
        one = self.turns.take()
        one.share.charge(one.piece_s)
        self.now += one.piece_s
        one.had.append(self.now)
        if again:
            self.turns.add(one)
        return one

    def serve_for(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.serve()


def test_who_always_has_work_gets_as_much_time_as_the_others_however_long_its_pieces_are() -> None:
    room = Room()
    long, short = room.enter("long", piece_s=0.1), room.enter("short", piece_s=0.001)
    room.serve_for(10.0)
    assert long.share.total_s == pytest.approx(short.share.total_s, abs=0.11)


def test_principals_share_alike_whatever_the_number_of_their_sessions() -> None:
    room = Room()
    many = [room.enter(f"m{number}", "many") for number in range(8)]
    one = room.enter("one", "one")
    room.serve_for(8.0)
    assert one.share.total_s == pytest.approx(4.0, abs=0.02)
    assert [each.share.total_s for each in many] == [pytest.approx(0.5, abs=0.02)] * 8
    assert one.share.principal.total_s + many[0].share.principal.total_s == pytest.approx(room.now)


@pytest.mark.parametrize("principal", ["p", "another"])
def test_short_work_of_one_that_comes_back_is_next(principal: str) -> None:
    room = Room()
    polite = room.enter("polite", principal, 0.05 * MS)
    room.serve(again=False)
    for number in range(8):
        room.enter(f"busy{number}")
    room.serve_for(1.0)
    for _ in range(200):
        # While it rests, one slice is given; then it comes back.
        room.serve()
        room.turns.add(polite)
        assert room.serve(again=False) is polite


def test_who_rested_saves_nothing_up() -> None:
    room = Room()
    rested = room.enter("rested")
    room.serve(again=False)
    busy = room.enter("busy")
    room.serve_for(100.0)
    before = busy.share.total_s
    room.turns.add(rested)
    room.serve_for(1.0)
    assert busy.share.total_s - before == pytest.approx(0.5, abs=CREDIT_S + SLICE_S)


def test_a_newcomer_does_not_hold_up_who_was_there_for_long() -> None:
    room = Room()
    old = room.enter("old")
    room.serve_for(3600.0)
    before = old.share.total_s
    room.enter("new")
    room.serve_for(1.0)
    assert old.share.total_s - before == pytest.approx(0.5, abs=CREDIT_S + SLICE_S)


def test_who_was_alone_has_not_used_up_the_turns_of_later() -> None:
    room = Room()
    alone = One("alone", room.turns.share("p"))
    for _ in range(1000):
        # As the engine does where there is nothing to sort.
        room.turns.begins(alone.share)
        alone.share.charge(1.0)
    room.enter("new")
    room.turns.add(alone)
    before = alone.share.total_s
    room.serve_for(1.0)
    # Its last turn was a whole second long.
    room.serve_for(2.0)
    assert alone.share.total_s - before > 0.9


def test_a_turn_ends_early_for_who_has_used_less_and_not_for_who_has_used_as_much() -> None:
    room = Room()
    first, second = room.enter("first"), room.enter("second")
    running = room.turns.take()
    assert running is first
    assert not room.turns.goes_before(running.share, 1 * MS, SLICE_S)
    assert room.turns.goes_before(running.share, SLICE_S, SLICE_S)
    running.share.charge(SLICE_S)
    room.turns.add(running)
    room.serve_for(1.0)
    running = room.turns.take()
    room.enter("woken")
    assert room.turns.goes_before(running.share, 1 * MS, SLICE_S)
    del second


def test_what_one_is_charged_while_it_waits_counts() -> None:
    room = Room()
    first, second = room.enter("first"), room.enter("second")
    first.share.charge(1.0)
    assert room.serve() is second
    assert room.serve() is second
    assert len(room.turns) == 2
