"""torch.amp: lower precision where it suits, and the scaling of losses that it needs.

grad_scaler   GradScaler
custom        what functions with gradients of their own see of autocast
"""

from __future__ import annotations

from tclient._session.modes import autocast as autocast
from tclient.amp.custom import custom_bwd as custom_bwd
from tclient.amp.custom import custom_fwd as custom_fwd
from tclient.amp.grad_scaler import GradScaler as GradScaler


def is_autocast_available(device_type: str) -> bool:
    """Whether there can be autocast for that kind of device."""
    return device_type in ("cpu", "cuda")
