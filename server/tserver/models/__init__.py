"""Models: networks with a name and a version, which serve forward passes to all callers.

    batching      the settings of a model's queue
    requests      requests, and the queue in which they wait
    statistics    how often and how fast
    batcher       dynamic batching: one forward pass for many requests
    registry      names, versions, states
    store         models on disk
    manager       all of it for asyncio, for whoever serves callers

Each knows only those above it, but for `store` and `registry`, which do not know each other. Tensors are the engine's.
"""
