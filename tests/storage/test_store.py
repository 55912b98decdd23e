"""What is kept on disk: whole or not at all, whatever ends or fails; each principal's own; and private."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.storage.faults import ACTIONS, NEW, OLD, OTHER, PRINCIPAL, keep, kept, left_in, steps
from tests.support.serving import server_environment
from tserver.errors import AlreadyExists, Exhausted, InvalidArgument, NotFound, ServerError, StorageFailed
from tserver.storage import files
from tserver.storage.directory import DataDirectory
from tserver.storage.quota import Use
from tserver.storage.store import Store

BEFORE = {"old": OLD.decode(), "other": OTHER.decode()}
AFTER = {
    "keep": {**BEFORE, "new": NEW.decode()},
    "overwrite": {**BEFORE, "old": NEW.decode()},
    "forget": {"other": OTHER.decode()},
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory."""
    return tmp_path / "data"


@pytest.fixture
def store(directory: Path) -> Store:
    """A store with two names."""
    made = Store(directory)
    keep(made, "old", OLD)
    keep(made, "other", OTHER)
    return made


def names_in(store: Store) -> dict[str, str]:
    return {each.name: kept(store, each.name).decode() for each in store.names(PRINCIPAL)}


def file_of(directory: Path, name: str, pattern: str) -> Path:
    (found,) = (directory / "names" / PRINCIPAL / name).glob(pattern)
    return found


# ---- ends and faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_a_process_that_is_killed_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, action: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.storage.faults", action, str(tmp_path)],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert not told[-1]["killed"]
    assert [each["kept"] for each in told if each["kept"] not in (BEFORE, AFTER[action])] == []
    # Both come about, and once it is done it stays done.
    done = [each["kept"] == AFTER[action] for each in told]
    assert done == sorted(done)
    assert {False, True} == set(done)
    for each in told:
        # Two files and a manifest for each name, and its folder: nothing is left of what was not finished.
        assert len(each["left"]) == 4 * len(each["kept"]), each


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["the disk is full", "the disk fails"])
@pytest.mark.parametrize("action", ["keep", "overwrite"])
def test_a_disk_that_fails_at_any_step_loses_nothing(directory: Path, store: Store, action: str, code: int) -> None:
    refused: type[ServerError] = Exhausted if code == errno.ENOSPC else StorageFailed
    failures = 0
    while True:
        left = failures

        def fail(name: str, args: tuple[Any, ...]) -> None:
            nonlocal left
            if name in ("write", "fsync", "mkdir", "rename") or (name == "open" and args[1] & os.O_CREAT):
                left -= 1
                if left == -1:
                    raise OSError(code, os.strerror(code))

        told: ServerError | None = None
        try:
            with steps(fail):
                ACTIONS[action](store)
        except refused as error:
            told = error
        if told is None:
            break
        assert str(directory) not in told.message
        assert told.reason == ("DISK_FULL" if code == errno.ENOSPC else "STORAGE_FAILED")
        # A name whose last rename is done is done, also where that cannot be brought to disk.
        assert names_in(store) in (BEFORE, AFTER[action])
        assert len(left_in(directory)) == 4 * len(names_in(store))
        failures += 1
    assert failures > 8
    assert names_in(store) == AFTER[action]


def test_bytes_are_on_disk_before_they_have_a_name(store: Store) -> None:
    with steps(lambda name, args: None) as done:
        keep(store, "old", NEW)
    order = [each for each in done if each in ("write", "fsync", "rename")]
    last = len(order) - 1 - order[::-1].index("rename")
    # Each of three files, then the folder that they are in; behind the rename, the folder again.
    assert order[:last].count("fsync") >= 4
    assert order[last - 1] == "fsync"
    assert order[last + 1] == "fsync"


def test_what_the_contents_raise_leaves_nothing(directory: Path, store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise InvalidArgument("changed meanwhile")

    with pytest.raises(InvalidArgument, match="changed meanwhile"):
        store.write(PRINCIPAL, "old", {"first.bin": broken()}, size_bytes=8, overwrite=True)
    assert names_in(store) == BEFORE
    assert len(left_in(directory)) == 8


def test_a_start_beside_one_who_writes_leaves_what_is_written(directory: Path, store: Store) -> None:
    def slow() -> Iterator[bytes]:
        yield OLD
        # Another engine of the house starts.
        assert names_in(Store(directory)) == BEFORE

    store.write(PRINCIPAL, "slow", {"first.bin": slow()}, size_bytes=len(OLD))
    assert [each.name for each in Store(directory).names(PRINCIPAL)] == ["old", "other", "slow"]


# ---- damage ---------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def into_a_link(path: Path) -> None:
    target = path.rename(path.parent.parent.parent.parent / "elsewhere")
    path.symlink_to(target)


def another_count(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"tensors": 0', b'"tensors": 9'))


def into_another(path: Path) -> None:
    path.write_bytes((path.parent.parent / "other" / path.name).read_bytes())


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a bit of a file": ("first-*", flip),
    "a byte is missing": ("first-*", cut),
    "a file is missing": ("second-*", Path.unlink),
    "a file is a link": ("first-*", into_a_link),
    "a bit of the manifest": ("manifest.json", flip),
    "a word of the manifest": ("manifest.json", another_count),
    "an empty manifest": ("manifest.json", lambda path: os.truncate(path, 0)),
    "a manifest that is a link": ("manifest.json", into_a_link),
    "a manifest of another": ("manifest.json", into_another),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_told_by_name_and_others_are_not_affected(
    directory: Path, store: Store, damage: str
) -> None:
    pattern, harm = DAMAGES[damage]
    harm(file_of(directory, "old", pattern))
    for each in (store, Store(directory)):
        with pytest.raises((StorageFailed, Exhausted)) as told:
            kept(each, "old")
        assert told.value.reason == "DAMAGED" or damage == "a file is a link"
        assert "'old'" in told.value.message
        assert kept(each, "other") == OTHER
        assert {kept.name for kept in each.names(PRINCIPAL)} == {"old", "other"}
    keep(store, "old", NEW)
    assert kept(store, "old") == NEW


def test_what_a_newer_server_kept_is_refused_in_words(directory: Path, store: Store) -> None:
    path = file_of(directory, "old", "manifest.json")
    path.write_bytes(files.seal({**json.loads(path.read_bytes()), "format_version": 2}))
    with pytest.raises(StorageFailed, match="newer server, in format 2; this one reads up to 1") as told:
        kept(store, "old")
    assert told.value.reason == "NEWER_FORMAT"


def test_a_file_that_a_manifest_puts_elsewhere_is_not_read(directory: Path, store: Store) -> None:
    path = file_of(directory, "old", "manifest.json")
    manifest = json.loads(path.read_bytes())
    secret = b"secret"
    (directory / "names" / "secret.bin").write_bytes(secret)
    sound = {"bytes": len(secret), "sha256": hashlib.sha256(secret).hexdigest()}
    manifest["files"]["first.bin"] = {"file": "../../secret.bin", **sound}
    path.write_bytes(files.seal(manifest))
    with pytest.raises(StorageFailed, match="damaged"), store.reading(PRINCIPAL, "old"):
        pass


# ---- names and principals -------------------------------------------------------------------------------------------

NAMES = ["a/b", "../../etc/passwd", "..", ".", ".new-x", ".lock", "%2E%2E", "a b", "größe", "名前", "~", "-rf", "NUL"]


def test_any_name_stays_in_its_folder_and_comes_back(directory: Path, tmp_path: Path) -> None:
    store = Store(directory)
    for name in NAMES:
        keep(store, name, name.encode() * 2)
    again = Store(directory)
    assert [each.name for each in again.names(PRINCIPAL)] == sorted(NAMES)
    assert all(kept(again, name) == name.encode() * 2 for name in NAMES)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    assert {path.name for path in (directory / "names").iterdir()} == {PRINCIPAL}
    for name in NAMES:
        again.forget(PRINCIPAL, name)
    assert again.names(PRINCIPAL) == []


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("", "empty"),
        ("x" * 201, "201 characters"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\ud800", "control character"),
        ("名" * 100, "too long"),
    ],
    ids=["empty", "long", "null", "line", "half a character", "long once encoded"],
)
def test_what_is_no_name_is_refused(store: Store, name: str, cause: str) -> None:
    for act in (lambda: keep(store, name, NEW), lambda: kept(store, name), lambda: store.forget(PRINCIPAL, name)):
        with pytest.raises(InvalidArgument, match=cause):
            act()


@pytest.mark.parametrize("principal", ["..", "a/b", "x" * 500, "", "名" * 200], ids=repr)
def test_names_belong_to_their_principal(store: Store, principal: str) -> None:
    store.write(principal, "mine", {"first.bin": [b"x"]}, size_bytes=1)
    assert [each.name for each in store.names(principal)] == ["mine"]
    assert names_in(store) == BEFORE
    for act in (lambda: kept(store, "mine"), lambda: store.forget(PRINCIPAL, "mine")):
        with pytest.raises(NotFound, match="nothing is kept under the name 'mine'"):
            act()


def test_a_name_that_is_taken_is_overwritten_only_if_that_is_said(store: Store) -> None:
    with pytest.raises(AlreadyExists, match="'old' is taken"):
        keep(store, "old", NEW, overwrite=False)
    assert names_in(store) == BEFORE


def test_the_same_request_again_is_done(store: Store) -> None:
    for data in (b"first", b"again"):
        store.write(PRINCIPAL, "once", {"first.bin": [data]}, size_bytes=5, token="of the request")
    with store.reading(PRINCIPAL, "once") as reading:
        assert b"".join(reading.chunks("first.bin")) == b"first"


def test_many_at_once_leave_one_of_theirs(store: Store, directory: Path) -> None:
    """Several stores, as several engines of a house have."""
    ends: list[bytes] = [str(number).encode() * 5000 for number in range(8)]

    def work(data: bytes) -> None:
        one = Store(directory)
        for _ in range(5):
            keep(one, "old", data)
            assert kept(one, "old") in ends

    threads = [threading.Thread(target=work, args=(data,)) for data in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(store, "old") in ends
    assert len(left_in(directory)) == 8


def test_what_its_writer_removes_while_a_process_begins_is_no_failure(
    store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, "old", b"data")
    left = next((directory / "names").iterdir()) / ".new-0123456789abcdef"
    left.mkdir()
    take = files.take_lock

    def take_late(path: Path, *, waits: bool) -> int | None:
        if path.parent == left:
            files.sweep(left)
        return take(path, waits=waits)

    monkeypatch.setattr(files, "take_lock", take_late)
    assert kept(Store(directory), "old") == b"data"
    assert not left.exists()


# ---- limits and modes -----------------------------------------------------------------------------------------------


def test_what_would_be_too_much_is_refused_before_it_is_written(directory: Path) -> None:
    asked: list[tuple[str, Use, Use]] = []

    def check(principal: str, used: Use, wanted: Use) -> None:
        asked.append((principal, used, wanted))
        if used.size_bytes + wanted.size_bytes > 100:
            raise Exhausted("too much", reason="LIMIT")

    store = Store(directory, check=check)
    store.write(PRINCIPAL, "one", {"first.bin": [bytes(60)]}, size_bytes=60)
    with pytest.raises(Exhausted, match="too much"):
        store.write(PRINCIPAL, "two", {"first.bin": [bytes(60)]}, size_bytes=60)
    # What is replaced is not counted; one that is larger than was said is refused when that is known.
    store.write(PRINCIPAL, "one", {"first.bin": [bytes(90)]}, size_bytes=90, overwrite=True)
    with pytest.raises(Exhausted, match="too much"):
        store.write(PRINCIPAL, "two", {"first.bin": [bytes(60)]}, size_bytes=0)
    store.write("another", "two", {"first.bin": [bytes(60)]}, size_bytes=60)
    assert asked[0] == (PRINCIPAL, Use(0, 0), Use(60, 1))
    assert store.used(PRINCIPAL) == Use(90, 1)
    assert [each.name for each in store.names(PRINCIPAL)] == ["one"]


def test_more_than_the_disk_has_is_refused_at_once(store: Store) -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError
        yield b""

    with pytest.raises(Exhausted) as told:
        store.write(PRINCIPAL, "much", {"first.bin": never()}, size_bytes=1 << 37)
    assert told.value.reason in ("DISK_FULL", "LIMIT")


def modes(top: Path) -> dict[str, int]:
    return {
        str(path.relative_to(top.parent)): stat.S_IMODE(path.lstat().st_mode)
        for path in (top, *top.rglob("*"))
        if not path.is_symlink()
    }


def test_nobody_else_reads_what_is_kept(directory: Path) -> None:
    before = os.umask(0)
    try:
        held = DataDirectory(directory)
        keep(Store(directory), "old", OLD)
        held.close()
    finally:
        os.umask(before)
    found = modes(directory)
    assert {mode for path, mode in found.items() if (directory.parent / path).is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if (directory.parent / path).is_file()} == {0o600}


def test_what_others_could_read_they_cannot_after_a_start(directory: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (directory / "models" / "net" / "1").mkdir(parents=True)
    (directory / "models" / "net" / "1" / "model.safetensors").write_bytes(b"")
    (directory / "models" / "link").symlink_to(outside)
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    DataDirectory(directory).close()
    assert set(modes(directory).values()) == {0o700, 0o600}
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755


def test_a_folder_that_is_a_link_is_not_followed(directory: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (directory / "names" / "guest").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed):
        store.write("guest", "x", {"first.bin": [b"x"]}, size_bytes=1)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    home = directory / "names" / PRINCIPAL
    (home / "link").symlink_to(home / "old")
    with pytest.raises(NotFound):
        kept(store, "link")


def test_one_server_has_a_data_directory_at_a_time(directory: Path) -> None:
    held = DataDirectory(directory)
    with pytest.raises(InvalidArgument, match="another server uses the data directory"):
        DataDirectory(directory)
    held.close()
    DataDirectory(directory).close()
