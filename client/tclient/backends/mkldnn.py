"""torch.backends.mkldnn: what torch computes with on a CPU. What is set here is noted; the server keeps its own."""

enabled = True


def is_available() -> bool:
    """True: torch on a CPU computes with it."""
    return True
