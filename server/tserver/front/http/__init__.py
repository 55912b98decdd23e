"""HTTP beside gRPC: what Prometheus scrapes, and the Open Inference Protocol for who speaks no gRPC.

    encodings   gzip and deflate, with a bound on what becomes of little
    messages    requests, responses, and which path leads where
    listener    the server on an address, by aiohttp: connections, times, sizes

Each knows only those above it, and none knows what is served. Only `listener` needs aiohttp.
"""
