"""Which of torch's errors mean that the device is lost, and which only that one call failed.

After an illegal access or a failed assertion on the device, CUDA gives the same error for every call that follows, and
the process must end. A launch that was refused leaves the device as it was. What is not known here ends the process:
to go on with a device that computes nothing would be worse.
"""

from __future__ import annotations

# How CUDA and its libraries say that they refused one call.
_OF_ONE_CALL = (
    "CUDA error: out of memory",
    "CUDA error: invalid argument",
    # A GPU that is not there was named.
    "CUDA error: invalid device ordinal",
    "CUDA error: invalid configuration argument",
    "CUDA error: too many resources requested for launch",
    "CUDA error: no kernel image is available",
    "CUDA error: operation not supported",
    "CUDA error: operation not permitted when stream is capturing",
    "CUDA error: operation failed due to a previous error during capture",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED",
    "CUDA error: CUBLAS_STATUS_ARCH_MISMATCH",
)
_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED")


class DeviceFailure(BaseException):
    """The device is in a state that no call can recover from; the process must end."""


def is_device_lost(error: BaseException) -> bool:
    """Whether the device is of no more use after this error."""
    text = str(error)
    # At the start only: further on it may be a caller's own text that torch quotes.
    if not text.startswith("CUDA error:") and type(error).__name__ != "AcceleratorError":
        return False
    return not text.startswith(_OF_ONE_CALL)


def is_memory_refused(error: BaseException) -> bool:
    """Whether memory that is not the caching allocator's ran out: pinned memory, or a library's own."""
    return str(error).startswith(_OUT_OF_MEMORY)
