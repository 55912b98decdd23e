"""torch.signal: windows, by which parts of a signal are weighted."""

from tclient.signal import windows as windows
