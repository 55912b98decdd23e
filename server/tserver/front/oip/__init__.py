"""The Open Inference Protocol: the models, for clients of Triton and KServe. A listener of its own.

    wire        requests and responses as bytes: elements never pass through protobuf
    regions     system shared memory
    describe    metadata, configuration and statistics, as the protocol words them
    inference   one request: checked, run, answered
    servicer    the RPCs
    listener    the gRPC server they are on

Each knows only those above it. The numbers and rules are those of the protocol's public definition.
"""
