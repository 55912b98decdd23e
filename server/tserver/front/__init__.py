"""The address of the server: requests in, statuses out. Knows gRPC, sessions and models; does not know torch.

rpc               one RPC under way: who calls, until when
status            errors as statuses
rpc_counts        counts of RPCs
interceptor       the one way in, for all of the listeners
binding           requests and responses as bytes
data_endpoint     bulk bytes on a socket of their own: over `connections`, into what `transfers` names
tensor_service, model_service, forward_stream, health    the services
oip               the Open Inference Protocol, on a listener of its own
http              requests of HTTP, and the listener for them
metrics           what Prometheus is told
listeners, server all of it, put together and stopped
"""
