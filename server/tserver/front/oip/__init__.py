"""The Open Inference Protocol: the models, for clients of Triton and KServe, over gRPC and over HTTP.

    tensors         a request and its answer, whatever the wire
    regions         system shared memory
    describe        metadata, configuration and statistics, as the protocol words them
    inference       one request: checked, run, answered
    service         all else that is asked
    wire            requests and responses of gRPC as bytes: elements never pass through protobuf
    protobuf_form, servicer, stream, listener   the RPCs, and the gRPC server they are on
    json_form, routes                           the paths of HTTP

Each knows only those above it; the two forms do not know each other. The numbers and rules are those of the protocol's
public definition.
"""
