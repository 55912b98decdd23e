"""The file of limits, and the accounts that are kept by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tserver.config import Config
from tserver.errors import Exhausted
from tserver.limits.account import Account, Accounts
from tserver.limits.file import Limits, LimitsFile, parse

WRONG = {
    "an unknown name": ("[default]\nsesions = 1", "'sesions' is not known; do you mean sessions?"),
    "an unknown table": ("[defaults]\nsessions = 1", "'defaults' is not known; do you mean default?"),
    "an unknown name of a principal": ('[principal."a"]\nstream = 1', "do you mean streams?"),
    "text": ('[default]\nsessions = "many"', "sessions is 'many', and not a number"),
    "a negative number": ("[default]\nstreams = -1", "streams is -1"),
    "a part of a session": ("[default]\nsessions = 1.5", "sessions is 1.5"),
    "no table": ("default = 1", r"\[default\] is not a table"),
    "no TOML": ("[default", "Expected"),
}


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_not_right_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text)


def test_a_principal_has_the_limits_of_all_but_for_its_own() -> None:
    table = parse('[default]\nsessions = 3\nstreams = 5\n[principal."ann"]\nsessions = 7')
    assert table.of("ann") == Limits(sessions=7, streams=5)
    assert table.of("bob") == Limits(sessions=3, streams=5)


def test_a_file_is_read_again_when_it_changes_and_one_that_is_not_right_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("[default]\nsessions = 3")
    accounts = Accounts(LimitsFile(path))
    account = accounts.of("ann")
    assert account.limits.sessions == 3
    path.write_text("[default]\nsessions = 30\n")
    accounts.look()
    assert account.limits.sessions == 30
    for broken in ("[default]\nsession = 1", "[default", ""):
        path.write_text(broken)
        accounts.look()
        assert account.limits.sessions == (30 if broken else 0)
    assert "the limits are left as they were" in caplog.text
    path.unlink()
    accounts.look()
    assert account.limits.sessions == 0


def test_where_callers_are_known_none_takes_all_sessions() -> None:
    assert LimitsFile.of(Config(max_sessions=100)).table.default.sessions == 0
    assert LimitsFile.of(Config(max_sessions=100, tls_client_ca="ca.pem")).table.default.sessions == 25


class _Clock:
    """A time that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def account(**limits: float) -> tuple[Account, _Clock]:
    """An account with these limits."""
    clock = _Clock()
    return Account("ann", Limits(**limits), clock), clock  # type: ignore[arg-type]


def test_who_has_sent_more_than_its_rate_waits_until_that_is_paid() -> None:
    made, clock = account(calls_per_s=10, bytes_per_s=1000)
    made.take(10, 1000)
    assert made.wait_s() == 0, "a second's worth may come at once"
    made.take(20, 10)
    assert made.wait_s() == pytest.approx(2)
    with pytest.raises(Exhausted, match="calls_per_s") as refused:
        made.check_rates()
    assert refused.value.reason == "LIMIT"
    assert (refused.value.details["limit"], refused.value.details["retry_after_s"]) == ("10", "2")
    clock.now += 2
    assert made.wait_s() == 0
    made.take(0, 5000)
    with pytest.raises(Exhausted, match="bytes_per_s"):
        made.check_rates()


def test_the_time_of_the_engine_is_given_by_the_minute() -> None:
    made, clock = account(compute_s_per_min=5)
    made.compute(4.9)
    assert not made.resumes_at()
    clock.now += 10
    made.compute(0.2)
    assert made.resumes_at() == 160
    clock.now = 160
    assert not made.resumes_at()


def test_streams_are_counted_while_they_last() -> None:
    made, _ = account(streams=1)
    with made.stream(), pytest.raises(Exhausted, match="streams: you use 1, and may use 1"), made.stream():
        pass
    with made.stream():
        assert made.streams == 1
