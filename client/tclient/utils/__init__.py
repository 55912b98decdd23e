"""torch.utils, as far as it concerns a client: data sets and loaders, checkpointing, hooks."""

from tclient.utils import checkpoint as checkpoint
from tclient.utils import data as data
from tclient.utils import hooks as hooks
