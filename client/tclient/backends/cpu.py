"""torch.backends.cpu: the processor of the server."""


def get_cpu_capability() -> str:
    """ "DEFAULT": the server does not tell what its processor can."""
    return "DEFAULT"
