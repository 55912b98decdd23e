"""Makes the table of operations from torch itself. Needed to regenerate it; no part of a running system."""
