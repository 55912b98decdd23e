"""The services that every gRPC server is expected to have: health and reflection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.raw import METHODS, Raw
from tests.support.refusals import refused
from tests.support.serving import ServerProcess, server_environment, serving

SERVICES = [
    "tensorcompute.v1.TensorService",
    "tensorcompute.v1.ModelService",
    "tensorcompute.v1.StorageService",
]


@pytest.mark.parametrize("service", ["", *SERVICES], ids=["the server", "tensors", "models", "names"])
def test_health_is_serving(anyone: Raw, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(anyone.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(request, timeout=10.0).status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(request, timeout=10.0)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_health_of_a_service_that_is_not_there_is_not_found(anyone: Raw) -> None:
    stub: Any = health_pb2_grpc.HealthStub(anyone.channel)
    with pytest.raises(grpc.RpcError) as told:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10.0)
    assert isinstance(told.value, grpc.Call)
    assert told.value.code() == grpc.StatusCode.NOT_FOUND


def reflect(raw: Raw, **request: Any) -> reflection_pb2.ServerReflectionResponse:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(raw.channel)
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=10.0)
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


def test_reflection_lists_the_services(anyone: Raw) -> None:
    listed = {service.name for service in reflect(anyone, list_services="").list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health"} <= listed


def test_reflection_describes_the_details_of_errors(anyone: Raw) -> None:
    answer = reflect(anyone, file_containing_symbol="google.rpc.ErrorInfo").file_descriptor_response
    assert any(FileDescriptorProto.FromString(raw).package == "google.rpc" for raw in answer.file_descriptor_proto)


@pytest.mark.parametrize("service", SERVICES)
def test_reflection_describes_every_rpc(anyone: Raw, service: str) -> None:
    answer = reflect(anyone, file_containing_symbol=service).file_descriptor_response
    described = [FileDescriptorProto.FromString(raw) for raw in answer.file_descriptor_proto]
    methods = {
        method.name
        for file in described
        for there in file.service
        if f"{file.package}.{there.name}" == service
        for method in there.method
    }
    assert methods == {name for name, method in METHODS.items() if method.containing_service.full_name == service}


def test_a_server_does_without_packages_that_a_gpu_host_may_lack(tmp_path: Path) -> None:
    for name in ("aiohttp", "grpc_health", "grpc_reflection", "prometheus_client", "uvloop"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError({name!r})\n")
    with (
        serving("--oip-listen", "127.0.0.1:0", env={"PYTHONPATH": str(tmp_path)}) as server,
        Raw(server.address) as raw,
    ):
        assert raw.ask("GetServerInfo").torch_version
        with refused(grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND"):
            raw.ask("DescribeMlp", name="nobody")
    assert "grpcio-health-checking is not installed" in server.log()
    assert "grpcio-reflection is not installed" in server.log()


@pytest.mark.parametrize("option", ["--http-listen", "--metrics-listen"])
def test_who_wants_http_is_told_what_it_needs(tmp_path: Path, option: str) -> None:
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('no aiohttp', name='aiohttp')\n")
    path = os.pathsep.join([str(tmp_path), server_environment()["PYTHONPATH"]])
    server = ServerProcess(option, "127.0.0.1:0", env={"PYTHONPATH": path})
    assert server.wait(40.0) != 0
    assert "aiohttp is not installed; the server needs: pip install 'tclient[server]'" in server.log()
    assert "Traceback" not in server.log()
