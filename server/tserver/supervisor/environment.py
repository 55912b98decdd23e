"""What the libraries of a server read from the environment when they are loaded."""

from __future__ import annotations

from collections.abc import Mapping

from tensorcompute.wire import polling

# What the server's libraries are told, unless somebody has told them already.
_ENVIRONMENT = {
    # Threads of a kernel that wait for each other must not keep gRPC from the core while they do: they look a few
    # microseconds long, which most waits end within, and then sleep. By default it is a millisecond, and more than that
    # when the core is not free at all.
    "GOMP_SPINCOUNT": "1000",
    # The C library keeps freed chunks of bulk data for the next ones: for the kernel to map each anew, page by page,
    # takes longer than to copy it.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    # torch's allocator on CUDA grows its segments in place: sessions come and go with tensors of all sizes, and
    # segments of fixed sizes would in the end hold much memory that fits none of them.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
# torch's older name for it. Both at once contradict each other.
_ALLOCATOR_WAS = "PYTORCH_CUDA_ALLOC_CONF"


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What the server's process is given: all that this one was given, and what nobody has set."""
    own = dict(_ENVIRONMENT)
    waiting = polling.choice()
    if waiting is not None:
        own[polling.VARIABLE] = waiting
    if _ALLOCATOR_WAS in given:
        del own["PYTORCH_ALLOC_CONF"]
    return {**own, **given}
