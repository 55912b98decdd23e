"""Files that torch wrote: data comes back as it was, and nothing else is read or run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

DTYPES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn"),
]


def written(obj: Any, *, legacy: bool = False) -> bytes:
    """The file that torch.save writes."""
    file = io.BytesIO()
    torch.save(obj, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def trained() -> dict[str, Any]:
    """A checkpoint as programs write them."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 1))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(network.parameters(), lr=0.1), 3)
    plan = {key: value for key, value in scheduler.state_dict().items() if not callable(value)}
    return {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": plan, "epoch": 3}


OBJECTS: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.arange(6.0).reshape(2, 3),
    "no-dimensions": lambda: torch.tensor(2.5),
    "empty": lambda: torch.zeros(0, 3),
    "view": lambda: torch.arange(12).reshape(3, 4).t()[1:, ::2],
    "expanded": lambda: torch.arange(3).expand(2, 3),
    "conjugate": lambda: torch.tensor([1 + 2j, 3j]).conj(),
    "with-gradients": lambda: {"x": torch.ones(2, requires_grad=True)},
    "parameter": lambda: [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.zeros(1), requires_grad=False)],
    "checkpoint": trained,
    "numbers": lambda: [1, -1, 1 << 40, 1 << 80, -(1 << 80), 300, 70000, 1.5, float("inf"), True, False, None, 1j],
    "texts": lambda: {"größe": "重み", "": "x" * 300, "bytes": b"\x00\xff", "array": bytearray(b"ab")},
    "containers": lambda: ([], (), {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {"a": {"b": [(torch.ones(1),)]}}, {1, 2}),
    "ordered": lambda: collections.OrderedDict(b=1, a=torch.ones(1)),
    "counter": lambda: collections.Counter("abca"),
    "keys": lambda: {1: 2, (1, "a"): 3, None: 4, 2.5: 5},
    "size": lambda: torch.ones(2, 3).shape,
    "names-of-torch": lambda: {
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "other": torch.device("cuda", 1),
    },
    **{name: lambda name=name: torch.tensor([0.0, 1.0, 1.0]).to(getattr(torch, name)) for name in DTYPES},  # type: ignore[misc]
}


def plain(value: Any) -> Any:
    """The same with what tells of them in the place of tensors and torch's names."""
    if isinstance(value, dict):
        return (
            type(value).__name__,
            [(key, plain(item)) for key, item in value.items()],
            plain(vars(value)) if hasattr(value, "__dict__") else None,
        )
    if hasattr(value, "tolist"):
        about = (str(value.dtype), tuple(value.shape), tuple(value.stride()), value.requires_grad, value.is_leaf)
        return type(value).__name__, about, value.tolist()
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(item) for item in value]
    return type(value).__name__, value if isinstance(value, int | float | complex | str | bytes | set) else str(value)


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS.keys())
def test_what_torch_saved_is_what_is_loaded(
    tc: ModuleType, tmp_path: Path, make: Callable[[], Any], legacy: bool
) -> None:
    content = written(make(), legacy=legacy)
    (tmp_path / "file.pt").write_bytes(content)
    try:
        theirs = torch.load(io.BytesIO(content), weights_only=True)
    except AttributeError:
        pytest.skip("torch does not read its own file")
    assert plain(tc.load(tmp_path / "file.pt")) == plain(theirs)
    assert plain(tc.load(io.BytesIO(content), map_location="cpu")) == plain(theirs)


def test_a_view_of_negative_numbers_has_their_values(tc: ModuleType) -> None:
    x = torch.tensor([1 + 2j, 3j]).conj().imag
    assert tc.load(io.BytesIO(written(x))).tolist() == x.tolist()


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
def test_tensors_that_shared_memory_share_it_again(tc: ModuleType, legacy: bool) -> None:
    x = torch.arange(6.0)
    y = tc.load(io.BytesIO(written({"all": x, "row": x[2:4], "same": x}, legacy=legacy)))
    y["row"].zero_()
    assert y["all"].tolist() == y["same"].tolist() == [0, 1, 0, 0, 4, 5]


def test_a_network_goes_on_from_a_file_of_torch(tc: ModuleType) -> None:
    saved = trained()
    network = tc.nn.Sequential(tc.nn.Linear(3, 5), tc.nn.BatchNorm1d(5), tc.nn.Linear(5, 1))
    optimizer = tc.optim.Adam(network.parameters())
    loaded = tc.load(io.BytesIO(written(saved)))
    network.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    assert plain(dict(network.state_dict())) == plain(dict(saved["model"]))


def test_loading_does_not_wait(tc: ModuleType) -> None:
    content = written(trained())
    session = tc.ones(1)._ref.session
    before = session.stats.waits
    tc.load(io.BytesIO(content))
    assert session.stats.waits == before


# ---- files that are not what they seem -------------------------------------------------------------------------------


class Calls:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def archive(pickled: bytes, storages: dict[str, bytes] | None = None, **entries: Any) -> bytes:
    """An archive with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", entries.get("compression", zipfile.ZIP_STORED)) as made:
        made.writestr("archive/data.pkl", pickled)
        made.writestr("archive/byteorder", entries.get("order", "little"))
        for key, data in (storages or {}).items():
            made.writestr(f"archive/data/{key}", data)
    return file.getvalue()


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 2) -> bytes:
    """A persistent id."""
    return (
        b"(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\nX" + struct.pack("<I", len(key)) + key.encode()
        + b"X\x03\x00\x00\x00cpu" + integer(count) + b"tQ"
    )  # fmt: skip


def integer(value: int) -> bytes:
    """An integer."""
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + data


def tensor(shape: tuple[int, ...] = (2,), strides: tuple[int, ...] = (1,), offset: int = 0, **of: Any) -> bytes:
    """A pickle of a tensor that is what is said."""
    numbers = [b"(" + b"".join(map(integer, each)) + b"t" for each in (shape, strides)]
    call = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
    return call + storage(**of) + integer(offset) + b"".join(numbers) + b"\x89NtR."


EIGHT = {"0": bytes(8)}
# t = (t, t) a hundred times: to show, compare or hash it takes for ever.
LAUGHS = b")" + b"q\x00h\x00\x86" * 100
HOSTILE: dict[str, tuple[bytes, str]] = {
    "system": (written(Calls(os.system, "touch /tmp/ran")), "GLOBAL posix.system was not"),
    "system-in-a-dict": (written({"a": [torch.ones(1), Calls(os.system, "exit")]}), "GLOBAL posix.system was not"),
    "system-legacy": (written(Calls(os.system, "touch /tmp/ran"), legacy=True), "GLOBAL posix.system was not"),
    "process": (written(Calls(subprocess.Popen, ["true"])), "GLOBAL (subprocess|commands).Popen was not"),
    "eval": (written(Calls(eval, "1")), "GLOBAL eval was not"),
    "getattr": (written(Calls(getattr, "x", "y")), "getattr"),
    "module": (written(torch.nn.Linear(1, 1)), "GLOBAL torch.nn.modules.linear.Linear was not"),
    "protocol-4": (archive(pickle.dumps(Calls(os.system, "exit"), 4)), "STACK_GLOBAL"),
    "plain-pickle": (pickle.dumps({"a": 1}, 2), "damaged|did not write it"),
    "instance": (archive(b"(ios\nsystem\n."), "INST"),
    "object": (archive(b"cos\nsystem\n)\x81."), "GLOBAL os.system was not"),
    "extension": (archive(b"\x82\x01."), "EXT1|damaged"),
    "call-of-a-dtype": (archive(b"\x80\x02ctorch\nfloat32\n)R."), "calls what is no function"),
    "call-of-a-text": (archive(b"\x80\x02X\x01\x00\x00\x00a)R."), "calls what is no function"),
    "build-on-a-list": (archive(b"\x80\x02]}b."), "sets attributes of a list"),
    "build-over-a-method": (
        archive(b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb."),
        "attributes that an OrderedDict has",
    ),
    "function-alone": (archive(b"\x80\x02ctorch\ndevice\n."), "does not end with one object"),
    "bytearray-of-a-size": (archive(b"\x80\x02c__builtin__\nbytearray\n" + integer(1 << 50) + b"\x85R."), "damaged"),
    "endless-key": (archive(b"\x80\x02}" + LAUGHS + b"K\x01s."), "tuples of tuples as keys"),
    "endless-item": (archive(b"\x80\x02c__builtin__\nset\n]" + LAUGHS + b"a\x85R."), "tuples of tuples"),
    "endless-shape": (
        archive(
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + b"K\x00" + LAUGHS + b"(K\x01t\x89NtR.", EIGHT
        ),
        "a shape, strides or an offset",
    ),
    "endless-device": (archive(b"\x80\x02ctorch\ndevice\n" + LAUGHS + b"\x85R."), "has no name"),
    "huge-text": (archive(b"\x80\x02X\xff\xff\xff\x7fabc."), "damaged"),
    "huge-number": (archive(b"\x80\x02\x8b\xff\xff\xff\x7fabc."), "damaged"),
    "nothing-on-the-stack": (archive(b"\x80\x02R."), "damaged"),
    "mark-in-the-way": (archive(b"\x80\x02K\x01(\x85."), "damaged"),
    "unknown-memo": (archive(b"\x80\x02h\x09."), "damaged"),
    "no-end": (archive(b"\x80\x02}"), "damaged"),
    "empty-pickle": (archive(b""), "damaged"),
    "huge-shape": (archive(tensor((1 << 40, 1 << 20), (1, 1)), EIGHT), "reaches beyond its storage"),
    "overflowing-shape": (archive(tensor((1 << 62, 1 << 62), (1 << 62, 1 << 62)), EIGHT), "reaches beyond its storage"),
    "negative-stride": (archive(tensor((2,), (-1,)), EIGHT), "a shape, strides or an offset"),
    "negative-offset": (archive(tensor(offset=-1), EIGHT), "a shape, strides or an offset"),
    "wrong-offset": (archive(tensor(offset=1), EIGHT), "reaches beyond its storage '0' of 8 bytes"),
    "wrong-offset-of-nothing": (archive(tensor((0,), offset=3), EIGHT), "reaches beyond its storage"),
    "two-lengths": (archive(tensor((2,), (1, 1)), EIGHT), "a shape, strides or an offset"),
    "many-dimensions": (archive(tensor((1,) * 65, (1,) * 65), EIGHT), "a shape, strides or an offset"),
    "large-storage": (archive(tensor(count=1 << 50), EIGHT), "said to have 4503599627370496 bytes, and has 8"),
    "small-storage": (archive(tensor((1,), count=1), EIGHT), "said to have 4 bytes, and has 8"),
    "missing-storage": (archive(tensor(key="../x"), EIGHT), "lacks the storage '../x'"),
    "quantized": (archive(tensor(kind="QInt8Storage"), EIGHT), "torch.QInt8Storage"),
    "bools": (archive(tensor(kind="BoolStorage", count=8), {"0": b"\x02" * 8}), "bools that are neither 0 nor 1"),
    "storage-alone": (archive(b"\x80\x02" + storage() + b".", EIGHT), "a storage without a tensor"),
    "compressed": (archive(tensor(), EIGHT, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "bomb": (archive(b"N" * (1 << 24), compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "big-endian": (archive(tensor(), EIGHT, order="big"), "the byte order 'big'"),
    "no-pickle": (archive(b"").replace(b"data.pkl", b"data.txt"), "has no data.pkl"),
    "no-archive": (b"PK\x03\x04rest of an archive", "the archive is damaged"),
    "truncated": (written(trained())[:-40], "the archive is damaged"),
    "truncated-legacy": (written(trained(), legacy=True)[:-4], "reaches beyond the end"),
    "truncated-legacy-pickle": (written(trained(), legacy=True)[:300], "damaged"),
    "system-in-the-keys": (
        written({}, legacy=True).removesuffix(b"\x80\x02]q\x00.") + pickle.dumps(Calls(os.system, "exit"), 2),
        "GLOBAL posix.system was not",
    ),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_whatever_is_no_data_is_refused_with_the_reason(
    tc: ModuleType, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    def never(*args: Any) -> Any:
        raise AssertionError("something was run")

    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(pickle, "loads", never)
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=f"(?s)(file of torch.save that is not read: |Weights only load failed).*({reason})"
    ):
        tc.load(io.BytesIO(content))
    assert time.monotonic() - began < 20
    assert not Path("/tmp/ran").exists()


def test_parts_that_overlap_are_refused(tc: ModuleType) -> None:
    content = bytearray(archive(tensor(), {"0": bytes(8), "1": bytes(8)}))
    directory = content.index(b"PK\x01\x02")
    places = []
    while (directory := content.find(b"PK\x01\x02", directory)) >= 0:
        places.append(directory)
        directory += 4
    content[places[3] + 42 : places[3] + 46] = content[places[2] + 42 : places[2] + 46]
    with pytest.raises(ValueError, match="parts of the archive overlap"):
        tc.load(io.BytesIO(bytes(content)))


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
def test_a_file_that_ends_or_changes_anywhere_is_read_or_refused(tc: ModuleType, legacy: bool) -> None:
    content = written({"x": torch.ones(2), "n": [1, 2.0, "t"]}, legacy=legacy)
    for place in range(0, len(content), 7):
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :]):
            if damaged[:1] in (b"\x80", b"P"):
                try:
                    tc.load(io.BytesIO(damaged))
                except ValueError:
                    pass


def test_what_is_saved_under_a_name_of_torch_is_no_pickle(tc: ModuleType, tmp_path: Path) -> None:
    tc.save({"x": tc.ones(2)}, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").read_bytes().startswith((b"PK", b"\x80"))
    assert tc.load(tmp_path / "model.pt")["x"].tolist() == [1, 1]
