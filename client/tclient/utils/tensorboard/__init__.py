"""torch.utils.tensorboard: a writer of what the package tensorboard shows. Needs that package, as torch does."""

from __future__ import annotations

try:
    from tensorboard.summary.writer.record_writer import RecordWriter as RecordWriter
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error.msg}: SummaryWriter writes by the package tensorboard; install it with: pip install tensorboard",
        name=error.name,
    ) from None

from tclient.utils.tensorboard.writer import FileWriter as FileWriter
from tclient.utils.tensorboard.writer import SummaryWriter as SummaryWriter
