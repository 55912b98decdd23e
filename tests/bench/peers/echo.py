"""A bare unary echo: Python gRPC, threaded server, bytes in, the same bytes out."""

from __future__ import annotations

from concurrent import futures

import grpc


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """The request itself."""
    return request


def main() -> None:
    """Serve on a free port."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
