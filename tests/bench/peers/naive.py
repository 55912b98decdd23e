"""The server that one writes in an afternoon: one unary RPC per forward pass of an MLP, protobuf in and out."""

from __future__ import annotations

from concurrent import futures

import grpc
import numpy as np
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.bench.mlp import network

MESSAGE_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class Forward:
    """The method, with its network."""

    def __init__(self) -> None:
        self._network = network()

    def __call__(self, request: pb.TensorData, context: grpc.ServicerContext) -> pb.TensorData:
        """The outputs for the inputs of the request."""
        inputs = torch.from_numpy(np.frombuffer(request.data, np.float32).reshape(tuple(request.shape)).copy())
        with torch.no_grad():
            outputs = self._network(inputs)
        return pb.TensorData(dtype=pb.D_TYPE_FLOAT32, shape=outputs.shape, data=outputs.numpy().tobytes())


def main() -> None:
    """Serve on a free port."""
    server = grpc.server(futures.ThreadPoolExecutor(16), options=MESSAGE_OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(
        Forward(),
        request_deserializer=pb.TensorData.FromString,
        response_serializer=pb.TensorData.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Naive", {"Forward": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
