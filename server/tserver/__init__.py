"""The server of tensorcompute: tensors on a device, and torch run on them over gRPC.

Rooms, each importing only the ones behind it: service (gRPC, no torch) -> session (order, ownership, limits) -> engine
(torch, no gRPC). The supervisor and the command line know neither gRPC nor torch until they serve.
"""

__version__ = "0.1.0"
