"""torch.version: of the client. What the server's torch is, `server_info()` tells."""

from tensorcompute import __version__

__all__ = ["__version__", "cuda", "debug", "git_version", "hip"]

cuda: str | None = None
hip: str | None = None
xpu: str | None = None
git_version = "unknown"
debug = False
