"""Models: networks with a name and a version, which serve forward passes to all callers.

    batching      the settings of a model's queue
    requests      requests, and the queue in which they wait
    statistics    how often and how fast
    batcher       dynamic batching: one forward pass for many requests
    names         names, versions and states, and what is told of those that are not there
    shapes        of outputs, from those of inputs
    registry      the models that there are
    disk, store   models on disk: as bytes, and as what they are
    changes       to one name one after the other
    manager       all of it for asyncio, for whoever serves callers

Each knows only those above it, but for `disk` and `store`, which do not know `registry`, nor it them.
Tensors are the engine's.
"""
