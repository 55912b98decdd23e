"""What a cluster is to be, as `tserver cluster up` was told. Knows no Ray."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from tensorcompute.wire.address import parse
from tserver.config import Config
from tserver.engines.house import House

NAMESPACE = "tensorcompute"
DIRECTORY = "directory"
# What Ray may give of one GPU.
_PARTS_OF_A_GPU = 10_000


@dataclass(frozen=True, slots=True)
class Spec:
    """All that actors are told. It travels over Ray's network, which Ray trusts: the key is a secret."""

    config: Config
    key: str
    # Of this package; engines of another one are refused.
    version: str
    # How many share one GPU; 0 is engines on the CPU.
    engines_per_gpu: int = 0
    cpus_per_engine: float = 1.0

    def message(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self)

    @classmethod
    def of(cls, message: dict[str, Any]) -> Spec:
        """As it was sent."""
        return cls(**{**message, "config": Config(**message["config"])})

    def resources(self) -> dict[str, float]:
        """What Ray sets aside for an engine."""
        if not self.engines_per_gpu:
            return {"num_cpus": self.cpus_per_engine}
        if self.engines_per_gpu == 1:
            gpus = float(self.config.devices_per_engine)
        else:
            gpus = int(_PARTS_OF_A_GPU / self.engines_per_gpu) / _PARTS_OF_A_GPU
        return {"num_cpus": self.cpus_per_engine, "num_gpus": gpus}

    def engines_on(self, gpus: int) -> int:
        """How many engines there are to be on so many GPUs."""
        return gpus * self.engines_per_gpu // self.config.devices_per_engine

    def host(self, node_ip: str) -> str:
        """Where engines of a node listen: on loopback as the front does, else at the node's own address."""
        listen = parse(self.config.listen, listening=True)
        host = listen.text.rpartition(":")[0] if listen.is_local else node_ip
        return f"[{host}]" if ":" in host and not host.startswith("[") else host

    def engine_config(self, listen: str, data_listen: str) -> Config:
        """The settings of an engine."""
        return replace(
            self.config,
            listen=listen,
            data_listen=data_listen,
            device="cuda:0" if self.engines_per_gpu else "cpu",
            devices_per_engine=self.config.devices_per_engine if self.engines_per_gpu else 1,
            engines=0,
            advertise="",
            # The front alone writes models to disk.
            data_dir="",
            metrics_listen="",
            http_listen="",
            oip_listen="",
        )

    def front_config(self, listen: str) -> Config:
        """The settings of a front. It shows no GPUs; those of engines are known by what engines say."""
        return replace(self.config, listen=listen, device="cpu", engines=0, advertise="")

    def house(self, engine: str, internal: str, front: str) -> House:
        """The place of an engine."""
        device = "cpu"
        if self.engines_per_gpu:
            device = f"cuda:{int(engine) * self.config.devices_per_engine // self.engines_per_gpu}"
        return House(engine, self.key, internal, front, device, self.config.data_dir)
