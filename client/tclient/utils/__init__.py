"""torch.utils, as far as it concerns a client: data sets and loaders, checkpointing."""

from tclient.utils import checkpoint as checkpoint
from tclient.utils import data as data
