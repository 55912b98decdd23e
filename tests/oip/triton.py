"""Triton's own clients, in a process of its own: that for gRPC registers `package inference`, as the stubs here do.

Functions below `Triton` run in that process; what they take and give travels there and back.
"""

from __future__ import annotations

import functools
import multiprocessing
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Array = np.ndarray[Any, Any]
TIMEOUT_S = 20.0


class Refusal(Exception):
    """What the client raised: the name of the status, and the text."""

    @property
    def status(self) -> str:
        """The name of the status."""
        return str(self.args[0])

    @property
    def text(self) -> str:
        """What the server said."""
        return str(self.args[1])


class Triton:
    """The process with the client, talking to one server."""

    def __init__(self, address: str, pool: ProcessPoolExecutor, kind: str = "grpc") -> None:
        """`kind` is "grpc" or "http"."""
        self._address = address
        self._pool = pool
        self._kind = kind

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client. Raises: Refusal."""
        return self.run(_call, method, args, kwargs)

    def infer(self, model: str, array: Array, **options: Any) -> tuple[Array, dict[str, Any]]:
        """The output of a model, and the response without it. Raises: Refusal."""
        return self.run(_infer, model, array, options)

    def run(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run a function in that process, with the client before its other arguments. Raises: Refusal."""
        asked = functools.partial(function, **options) if options else function
        return self._pool.submit(_run, self._kind, self._address, asked, args).result(TIMEOUT_S)


def processes() -> ProcessPoolExecutor:
    """What `Triton` runs in."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


# --- in the process of the client ---


@functools.cache
def _client(kind: str, address: str) -> Any:
    if kind == "http":
        import tritonclient.http

        return tritonclient.http.InferenceServerClient(address, concurrency=8)
    import tritonclient.grpc

    return tritonclient.grpc.InferenceServerClient(address)


def _run(kind: str, address: str, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    from tritonclient.utils import InferenceServerException

    try:
        return function(_client(kind, address), *args)
    except InferenceServerException as error:
        raise Refusal(str(error.status()).removeprefix("StatusCode."), error.message()) from None


def _call(client: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return getattr(client, method)(*args, **kwargs)


def _input(array: Array, name: str = "input", datatype: str = "", shape: Sequence[int] | None = None) -> Any:
    import tritonclient.grpc
    from tritonclient.utils import np_to_triton_dtype

    made = tritonclient.grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    # What the client would not send by itself.
    if datatype:
        made._input.datatype = datatype
    if shape is not None:
        made.set_shape(shape)
    return made


def _infer(client: Any, model: str, array: Array, options: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
    import tritonclient.grpc

    given = {key: options.pop(key) for key in ("name", "datatype", "shape") if key in options}
    if "outputs" in options:
        options["outputs"] = [tritonclient.grpc.InferRequestedOutput(name) for name in options["outputs"]]
    result = client.infer(model, [_input(array, **given)], **options)
    response = result.get_response(as_json=True)
    del response["raw_output_contents"]
    return result.as_numpy("output"), response


def infer_by_name(
    client: Any, model: str, arrays: Mapping[str, Array], outputs: Sequence[str], is_named: bool = True
) -> dict[str, Array]:
    """The outputs of a model for inputs by name, with either client. Outputs that are not named are all there are."""
    import importlib

    from tritonclient.utils import np_to_triton_dtype

    module = importlib.import_module(type(client).__module__.rpartition(".")[0])
    inputs = []
    for name, array in arrays.items():
        inputs.append(module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    wanted = [module.InferRequestedOutput(name) for name in outputs] if is_named else None
    result = client.infer(model, inputs, outputs=wanted)
    return {name: result.as_numpy(name) for name in outputs}


def infer_at_once(client: Any, model: str, arrays: Sequence[Array]) -> list[Array]:
    """The outputs of requests that are sent without waiting for one another."""
    ends: queue.SimpleQueue[tuple[int, Any, Any]] = queue.SimpleQueue()

    def done(index: int, result: Any, error: Any) -> None:
        ends.put((index, result, error))

    for index, array in enumerate(arrays):
        client.async_infer(model, [_input(array)], functools.partial(done, index))
    outputs: dict[int, Array] = {}
    for _ in arrays:
        index, result, error = ends.get(timeout=TIMEOUT_S)
        if error is not None:
            raise error
        outputs[index] = result.as_numpy("output")
    return [outputs[index] for index in range(len(arrays))]


def cancel(client: Any, model: str, array: Array) -> str:
    """Ask for an output and take that back at once: what the callback is told."""
    ends: queue.SimpleQueue[Any] = queue.SimpleQueue()
    call = client.async_infer(model, [_input(array)], lambda result, error: ends.put(error))
    call.cancel()
    error = ends.get(timeout=TIMEOUT_S)
    return str(error.status()).removeprefix("StatusCode.")


def stream(
    client: Any, requests: Sequence[tuple[str, str, Array]], headers: dict[str, str] | None, **options: Any
) -> list[tuple[str, Array | str, dict[str, Any]]]:
    """Send (id, model, input) on one stream: for each answer its id, its output or error, and its parameters."""
    ends: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    client.start_stream(lambda result, error: ends.put((result, error)), headers=headers)
    try:
        for name, model, array in requests:
            client.async_stream_infer(model, [_input(array)], request_id=name, **options)
        answers: list[tuple[str, Array | str, dict[str, Any]]] = []
        for _ in requests:
            result, error = ends.get(timeout=TIMEOUT_S)
            if error is not None:
                status = str(error.status()).removeprefix("StatusCode.")
                answers.append((status, error.message(), {}))
                if headers:
                    break
            else:
                response = result.get_response(as_json=True)
                answers.append((response["id"], result.as_numpy("output"), response.get("parameters", {})))
        return answers
    finally:
        client.stop_stream()


def stream_with_flag(client: Any, requests: Sequence[tuple[str, str, Array]]) -> Any:
    """As `stream`, asking for the mark of the final response."""
    return stream(client, requests, None, enable_empty_final_response=True)


def infer_in_shared_memory(
    client: Any, model: str, array: Array, width: int, output_offset: int
) -> tuple[Array, dict[str, Any], dict[str, Any]]:
    """The output through one object with input and output in it, the response, and the status of the regions."""
    import tritonclient.grpc
    from tritonclient.utils import np_to_triton_dtype
    from tritonclient.utils import shared_memory as shm

    output_bytes = array.shape[0] * width * array.itemsize
    size = output_offset + output_bytes
    handle = shm.create_shared_memory_region("both", "/tserver_test_both", size, create_only=True)
    try:
        shm.set_shared_memory_region(handle, [array])
        client.register_system_shared_memory("both", "/tserver_test_both", size)
        source = tritonclient.grpc.InferInput("input", array.shape, np_to_triton_dtype(array.dtype))
        source.set_shared_memory("both", array.nbytes)
        target = tritonclient.grpc.InferRequestedOutput("output")
        target.set_shared_memory("both", output_bytes, offset=output_offset)
        try:
            result = client.infer(model, [source], outputs=[target])
            status = client.get_system_shared_memory_status(as_json=True)
        finally:
            client.unregister_system_shared_memory("both")
        shape = (array.shape[0], width)
        output = shm.get_contents_as_numpy(handle, array.dtype, shape, offset=output_offset).copy()
        return output, result.get_response(as_json=True), status
    finally:
        shm.destroy_shared_memory_region(handle)


def fields_of_triton(client: Any) -> dict[str, tuple[int, int, bool]]:
    """Every field and enum value of Triton's own messages: its number, type, and whether it is repeated."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    return {**fields_of(service_pb2.DESCRIPTOR), **fields_of(model_config_pb2.DESCRIPTOR)}


def fields_of(file: Any) -> dict[str, tuple[int, int, bool]]:
    """Every field and enum value of a file, and every RPC: number, type, whether it is repeated or streams."""
    found: dict[str, tuple[int, int, bool]] = {}

    def walk(message: Any) -> None:
        for field in message.fields:
            found[field.full_name] = (field.number, field.type, field.is_repeated)
        for enum in message.enum_types:
            found.update({f"{enum.full_name}.{value.name}": (value.number, 0, False) for value in enum.values})
        for nested in message.nested_types:
            walk(nested)

    for message in file.message_types_by_name.values():
        walk(message)
    for enum in file.enum_types_by_name.values():
        found.update({f"{enum.full_name}.{value.name}": (value.number, 0, False) for value in enum.values})
    for service in file.services_by_name.values():
        for method in service.methods:
            key = f"{method.full_name} {method.input_type.full_name} {method.output_type.full_name}"
            found[key] = (int(method.client_streaming), int(method.server_streaming), False)
    return found
