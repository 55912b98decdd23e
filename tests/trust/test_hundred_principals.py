"""A hundred principals at once, each with a pattern of its own: none ever sees a byte of another's."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import storage_service_pb2 as ss
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.models.networks import create, forward
from tests.support.raw import Raw
from tests.support.values import tensor_data, tensor_of
from tests.trust.principals import Server, oip, serving_principals

PRINCIPALS = 100
ROUNDS = 2
WIDTH = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows its callers."""
    with serving_principals(tmp_path_factory.mktemp("data"), max_sessions=3 * PRINCIPALS) as server:
        yield server


class Principal:
    """One of them. All that it makes is filled with its own number; whatever else comes back is somebody's."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._raw = server.raw(f"p{number}")
        self._number = number
        self._pattern = torch.full((WIDTH,), float(number + 1))
        self._names: set[str] = set()

    def run(self) -> None:
        """All ways, some times over."""
        self._make_model()
        for _ in range(ROUNDS):
            for way in (self._sessionless, self._in_a_session, self._upload, self._forwards, self._listings):
                way()
        self._names_on_disk()
        self._region()

    def check(self, seen: torch.Tensor) -> None:
        """What is seen is this principal's."""
        assert torch.equal(seen.flatten(), self._pattern[: seen.numel()]), f"p{self._number} sees {seen.unique()}"

    def _make_model(self) -> None:
        layer = nn.Linear(1, WIDTH).requires_grad_(False)
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, self._number + 1)
        create(self._raw, "net", nn.Sequential(layer))

    def _sessionless(self) -> None:
        kept = self._raw.create(data=tensor_data(self._pattern)).id
        doubled = self._raw.ask("Add", input=kept, scalar=pb.Value(integer=0)).tensor.id
        self.check(self._raw.get(doubled))
        for meta in self._raw.ask("ListTensors").tensors:
            self.check(self._raw.get(meta.id))
        self._raw.ask("FreeTensors", tensors=[kept, doubled])

    def _in_a_session(self) -> None:
        with self._raw.open_session() as session:
            kept = session.make("full", [WIDTH], float(self._number + 1))
            # Memory that others have had: uninitialised, it is zeros.
            assert not session.read(session.make("empty", [WIDTH])).any()
            made = session.make("add", kept, 0)
            self.check(session.read(made))
            ones = session.make("ones", [1, 1])
            self.check(session.read(session.make("tc.model_forward", "net", 0, ones)))

    def _upload(self) -> None:
        header = ts.UploadHeader(dtype=pb.D_TYPE_FLOAT32, shape=[WIDTH], create_tensor=True)
        uploaded = self._raw.upload(header, [self._pattern.numpy().tobytes()]).tensor.id
        data = b"".join(message.chunk for message in self._raw.download(uploaded))
        self.check(torch.frombuffer(bytearray(data), dtype=torch.float32))
        self._raw.ask("FreeTensors", tensors=[uploaded])

    def _forwards(self) -> None:
        self.check(forward(self._raw, "net", torch.ones(1, 1)))
        call = ms.MlpForwardCall(id=1, name="net", inputs=tensor_data(torch.ones(1, 1)))
        request = ms.MlpForwardStreamRequest(calls=[call]).SerializeToString()
        (response,) = self._raw.send_stream("MlpForwardStream", [request])
        self.check(tensor_of(response.answers[0].output))
        given = {"name": "input", "datatype": "FP32", "shape": [1, 1], "contents": {"fp32_contents": [1.0]}}
        answer = oip(self._raw, "ModelInfer", model_name="net", inputs=[given])
        self.check(torch.frombuffer(bytearray(answer.raw_output_contents[0]), dtype=torch.float32))

    def _listings(self) -> None:
        (mlp,) = self._raw.ask("ListMlps").mlps
        assert (mlp.name, mlp.owner) == ("net", f"p{self._number}")
        assert [model.name for model in oip(self._raw, "RepositoryIndex").models] == ["net"]

    def _names_on_disk(self) -> None:
        kept = self._raw.create(data=tensor_data(self._pattern)).id
        _stored(self._raw, "Keep", ss.KeepRequest(name="x", tensors=[ss.KeptTensor(name="x", tensor=kept)]))
        recalled = ss.RecallResponse.FromString(_stored(self._raw, "Recall", ss.RecallRequest(name="x")))
        self.check(self._raw.get(recalled.tensors[0].tensor.id))
        listed = ss.ListNamesResponse.FromString(_stored(self._raw, "ListNames", ss.ListNamesRequest()))
        assert [each.name for each in listed.names] == ["x"]

    def _region(self) -> None:
        path = Path("/dev/shm") / f"tserver-hundred-{secrets.token_hex(8)}"
        path.write_bytes(bytes(4 * WIDTH))
        try:
            oip(self._raw, "SystemSharedMemoryRegister", name="r", key=f"/{path.name}", byte_size=4 * WIDTH)
            shared = {
                "shared_memory_region": {"string_param": "r"},
                "shared_memory_byte_size": {"int64_param": 4 * WIDTH},
            }
            given = {"name": "input", "datatype": "FP32", "shape": [1, 1], "contents": {"fp32_contents": [1.0]}}
            wanted = {"name": "output", "parameters": shared}
            oip(self._raw, "ModelInfer", model_name="net", inputs=[given], outputs=[wanted])
            self.check(torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32))
        finally:
            oip(self._raw, "SystemSharedMemoryUnregister")
            path.unlink()


def _stored(raw: Raw, method: str, request: ss.KeepRequest | ss.RecallRequest | ss.ListNamesRequest) -> bytes:
    path = f"/tensorcompute.v1.StorageService/{method}"
    answer: bytes = raw.channel.unary_unary(path)(request.SerializeToString(), 20.0)
    return answer


def test_nobody_sees_a_byte_of_another_s(server: Server) -> None:
    together = threading.Barrier(PRINCIPALS)

    def run(number: int) -> None:
        principal = Principal(server, number)
        together.wait(60.0)
        principal.run()

    with ThreadPoolExecutor(PRINCIPALS) as threads:
        list(threads.map(run, range(PRINCIPALS)))


def test_a_pattern_of_another_s_is_noticed(server: Server) -> None:
    # What the test above looks with.
    check: Callable[[torch.Tensor], None] = Principal(server, 1).check
    with pytest.raises(AssertionError, match="p1 sees"):
        check(torch.full((4,), 3.0))
