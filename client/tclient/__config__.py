"""torch.__config__: how torch was built. It is the server's, which tells its version."""

from tclient._info import server_info


def show() -> str:
    """A text for people."""
    return f"PyTorch {server_info().torch_version}, run by a tensor server"


def parallel_info() -> str:
    """A text for people: the threads are the server's to choose."""
    return "ATen/Parallel:\n\tthe threads are those of the tensor server\n"
