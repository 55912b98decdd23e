"""What a server is told at its start. Knows neither gRPC nor torch."""

from __future__ import annotations

from dataclasses import dataclass

MIN_PROTOCOL = 1
MAX_PROTOCOL = 2


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one server process. Sizes are in bytes, times in seconds."""

    listen: str = "127.0.0.1:50051"
    device: str = "auto"
    devices_per_engine: int = 1
    engines: int = 0
    isolation: str = "shared"
    spare_engines: int = 1
    advertise: str = ""
    front_only: bool = False
    insecure: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tokens: str = ""
    jwt_jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    lease_s: float = 300.0
    limits: str = ""
    audit_log: str = ""
    max_sessions: int = 1024
    max_session_bytes: int = 0
    max_memory_bytes: int = 0
    max_message_bytes: int = 4 << 20
    max_inline_bytes: int = 1 << 20
    max_unacked_bytes: int = 64 << 20
    max_chunk_bytes: int = 1 << 20
    max_batches_in_flight: int = 64
    max_nesting: int = 64
    max_call_elements: int = 0
    single_owner: bool = False
    threads: int = 0
    drain_s: float = 10.0
    hang_s: float = 300.0
    data_dir: str = ""
    checkpoint_on_drain: bool = False
    model_dir: str = ""
    data_listen: str = "auto"
    shared_memory: bool = False
    send_to: str = "house"
    oip_listen: str = ""
    oip_max_message_bytes: int = 0
    oip_model_control: bool = False
    oip_shared_memory: bool = False
    http_listen: str = ""
    metrics_listen: str = ""
    otlp_endpoint: str = ""
    trace_rate: int = 0
    log_level: str = "info"
    log_format: str = "auto"

    @property
    def is_house(self) -> bool:
        """Whether there are engines behind a front, each a process of its own, in the place of one server."""
        return self.engines > 1 or self.isolation != "shared" or "," in self.device or self.device == "cuda:all"

    @property
    def has_credentials(self) -> bool:
        """Whether callers must say who they are."""
        return bool(self.tokens or self.jwt_jwks or self.tls_client_ca)

    @property
    def max_output_bytes(self) -> int:
        """Of the outputs of a forward pass in a message: those, too, may have what messages to the server have."""
        return max(self.max_inline_bytes, self.max_message_bytes - (4 << 10))

    def places_to_send(self) -> frozenset[str]:
        """Where this server may connect to send tensors: "house", "any", addresses. Raises: ValueError."""
        places = frozenset(place.strip() for place in self.send_to.split(","))
        for place in places - {"none", "house", "any"}:
            host, _, port = place.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{place!r} is not HOST:PORT, house, any or none")
        return places - {"none"}

    def listeners(self) -> dict[str, str]:
        """The addresses that somebody has chosen, by the option that says them."""
        chosen = {
            "--listen": self.listen,
            "--data-listen": self.data_listen if self.data_listen != "auto" else "",
            "--oip-listen": self.oip_listen,
            "--http-listen": self.http_listen,
            "--metrics-listen": self.metrics_listen,
        }
        return {option: address for option, address in chosen.items() if address}
