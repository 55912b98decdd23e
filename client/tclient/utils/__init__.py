"""torch.utils, as far as it concerns a client: data sets and loaders."""

from tclient.utils import data as data
