"""torch.backends.mps: the GPU of a Mac, which no server has."""


def is_available() -> bool:
    """False: no server runs on one."""
    return False


def is_built() -> bool:
    """False: no server's torch is built for one."""
    return False
