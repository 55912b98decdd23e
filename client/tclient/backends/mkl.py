"""torch.backends.mkl: what torch computes products with on a CPU."""


def is_available() -> bool:
    """True: torch on a CPU computes with it."""
    return True
