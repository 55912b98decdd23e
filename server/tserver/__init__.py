"""The server of tensorcompute: tensors on a device, and torch run on them over gRPC.

Rooms, each importing only those behind it:

    front      the address: gRPC services, the interceptor, listeners, metrics. No torch
    engines    the port of an engine, and the forms it comes in
    session    order, ownership, limits        models    names, queues, disks
    engine     torch. The only room that imports it

The supervisor and the command line stand beside them, and know neither gRPC nor torch until they serve.
"""

from tensorcompute import __version__ as __version__
