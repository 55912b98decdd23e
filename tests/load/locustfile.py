"""Users of the server, for locust: closed loops of gRPC calls, each user on a connection of its own.

`make load` runs it; `locust -f tests/load/locustfile.py --host HOST:PORT` opens the web page. locust patches Python's
threads and sockets on import, so this file runs under locust only.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import grpc
import grpc.experimental.gevent
from locust import User, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.stats import CSV_STATS_INTERVAL_SEC

from tensorcompute.v1 import model_service_pb2_grpc as model_stubs
from tests.load.workload import OPTIONS, TIMEOUT_S, Rows, TensorWork, create_network


def _let_grpc_and_gevent_agree(**_: Any) -> None:
    """In each worker, after locust has forked: gRPC's poller does not survive a fork."""
    grpc.experimental.gevent.init_gevent()


def _let_the_files_be_finished(environment: Environment, **_: Any) -> None:
    """locust writes its CSV files once a second and not at the end: the last second would be missing."""
    options = environment.parsed_options
    if options is not None and options.csv_prefix and not options.worker:
        time.sleep(CSV_STATS_INTERVAL_SEC + 0.1)


events.init.add_listener(_let_grpc_and_gevent_agree)
events.test_stop.add_listener(_let_the_files_be_finished)


class GrpcUser(User):
    """A user with a channel. The host is an address, "host:port"."""

    abstract = True
    channel: grpc.Channel

    def on_start(self) -> None:
        """Connect."""
        address = (self.host or self.environment.host or "127.0.0.1:50051").removeprefix("http://")
        self.channel = grpc.insecure_channel(address, options=OPTIONS)

    def on_stop(self) -> None:
        """Disconnect."""
        self.channel.close()

    def ask(self, name: str, call: Callable[[], Any]) -> bool:
        """Call, and tell locust how it went. False if it failed."""
        length = 0
        failure: Exception | None = None
        began = time.perf_counter()
        try:
            response = call()
            length = response.ByteSize() if hasattr(response, "ByteSize") else 0
        except grpc.RpcError as error:
            # Without the addresses and times in the text, so that locust counts equal failures together.
            status = cast(grpc.Call, error)
            failure = RuntimeError(f"{status.code().name}: {(status.details() or '')[:100]}")
        except AssertionError as error:
            failure = error
        elapsed_ms = (time.perf_counter() - began) * 1e3
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=elapsed_ms,
            response_length=length,
            exception=failure,
            context={},
        )
        return failure is None


class MlpUser(GrpcUser):
    """W4: one row for the network 784-256-128-10, again and again. The answer is checked."""

    weight = 3
    rows = Rows()
    numbers = itertools.count()

    def on_start(self) -> None:
        """See that the network is there."""
        super().on_start()
        self.stub: Any = model_stubs.ModelServiceStub(self.channel)
        if not self.ask("CreateMlp", lambda: create_network(self.channel)):
            raise StopUser

    @task
    def forward(self) -> None:
        """One row."""
        number = next(self.numbers)
        request = self.rows.request(number)

        def call() -> Any:
            response = self.stub.MlpForward(request, timeout=TIMEOUT_S)
            self.rows.check(number, response.output.data)
            return response

        self.ask("MlpForward", call)


class TensorUser(GrpcUser):
    """Mixed tensor work in a session: make, transpose, add, reshape, read, a batch with a matrix product, free."""

    weight = 1
    work: TensorWork | None = None

    def on_stop(self) -> None:
        """End the session."""
        if self.work is not None:
            self.ask("CloseSession", self.work.close)
        super().on_stop()

    @task
    def round(self) -> None:
        """One of each. A failure ends the round, and the next begins with a session of its own."""
        if self.work is None:

            def open_session() -> None:
                self.work = TensorWork(self.channel)

            if not self.ask("OpenSession", open_session):
                time.sleep(1.0)
                return
        assert self.work is not None
        for name, call in self.work.steps():
            if not self.ask(name, call):
                self.work = None
                return
