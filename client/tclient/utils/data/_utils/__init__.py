"""What the loader is made of: collation and worker processes."""

from tclient.utils.data._utils import collate as collate
from tclient.utils.data._utils import worker as worker
