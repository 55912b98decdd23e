"""torch.mps: a kind of GPU that no server has."""


def is_available() -> bool:
    """False: no server runs on one."""
    return False


def device_count() -> int:
    """0: no server runs on one."""
    return 0


def empty_cache() -> None:
    """Nothing: no server runs on one."""
