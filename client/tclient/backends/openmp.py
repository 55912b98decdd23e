"""torch.backends.openmp: what runs torch's threads on a CPU."""


def is_available() -> bool:
    """True: torch on a CPU runs its threads with it."""
    return True
