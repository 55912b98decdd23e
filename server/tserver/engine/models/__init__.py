"""Networks that are kept under a name and version, and serve forward passes to all callers.

    description   what a network is made of, checked, counted and printed
    files         the safetensors format
    model         a network with its weights on the device
    batching      the settings of a model's queue
    requests      requests, and the line in which they wait
    lane          a model's turn on the engine: one forward pass for many requests
    graphs        the same on CUDA, captured
    statistics    how often and how fast
    registry      names, versions, states
    store         models on disk
    door          the way in, for whoever serves callers: asyncio

Each knows only those above it, but for `store` and `registry`, which do not know each other.
"""

from tserver.engine.models.batching import BatchingConfig as BatchingConfig
from tserver.engine.models.batching import QueuePolicy as QueuePolicy
from tserver.engine.models.description import activation_layer as activation_layer
from tserver.engine.models.door import Inference as Inference
from tserver.engine.models.door import ModelDoor as ModelDoor
from tserver.engine.models.model import run_network as run_network
from tserver.engine.models.registry import Registry as Registry
from tserver.engine.models.registry import Served as Served
from tserver.engine.models.statistics import ModelStatistics as ModelStatistics
