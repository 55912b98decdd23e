"""How requests for one model are run together: the settings, checked. Names and meanings are Triton's.

Knows neither torch nor gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import InvalidArgument

DEFAULT_MAX_BATCH_SIZE = 1024
DEFAULT_MAX_QUEUE_SIZE = 10_000
# Longer than this a caller would take the server for dead.
_MAX_DELAY_US = 60_000_000
_MAX_PRIORITY_LEVELS = 1000

_ACTIONS: dict[int, Literal["REJECT", "DELAY"]] = {
    ms.TIMEOUT_ACTION_UNSPECIFIED: "REJECT",
    ms.TIMEOUT_ACTION_REJECT: "REJECT",
    ms.TIMEOUT_ACTION_DELAY: "DELAY",
}


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Bounds of a queue. A size of 0 is no bound, a timeout of 0 is for ever."""

    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = DEFAULT_MAX_QUEUE_SIZE

    def timeout_us(self, wanted_us: int) -> int:
        """How long a request may wait that asked for `wanted_us` (0: did not ask); 0 is for ever."""
        if not self.allow_timeout_override or not wanted_us:
            return self.default_timeout_us
        # A request may shorten the time, not lengthen it.
        return min(wanted_us, self.default_timeout_us) if self.default_timeout_us else wanted_us

    @classmethod
    def read(cls, message: ms.QueuePolicy) -> QueuePolicy:
        """The policy that a message describes. Raises: InvalidArgument."""
        if message.timeout_action not in _ACTIONS:
            raise InvalidArgument(f"timeout_action {message.timeout_action} is not known; use one of TimeoutAction")
        size = message.max_queue_size if message.HasField("max_queue_size") else DEFAULT_MAX_QUEUE_SIZE
        return cls(_ACTIONS[message.timeout_action], message.default_timeout_us, message.allow_timeout_override, size)

    def message(self) -> ms.QueuePolicy:
        """The policy as a message, with nothing left to a default."""
        action = ms.TIMEOUT_ACTION_DELAY if self.timeout_action == "DELAY" else ms.TIMEOUT_ACTION_REJECT
        return ms.QueuePolicy(
            timeout_action=action,
            default_timeout_us=self.default_timeout_us,
            allow_timeout_override=self.allow_timeout_override,
            max_queue_size=self.max_queue_size,
        )


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """The settings of one model. Raises InvalidArgument where they contradict each other."""

    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy = QueuePolicy()
    priority_queue_policy: Mapping[int, QueuePolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_batch_size < 1:
            raise InvalidArgument("max_batch_size is 0; it is at least 1, which runs every row alone")
        for size in self.preferred_batch_size:
            if not 1 <= size <= self.max_batch_size:
                raise InvalidArgument(
                    f"preferred_batch_size {size} is not between 1 and max_batch_size {self.max_batch_size}"
                )
        if self.max_queue_delay_us > _MAX_DELAY_US:
            raise InvalidArgument(f"max_queue_delay_us is {self.max_queue_delay_us}; it is at most {_MAX_DELAY_US}")
        if self.priority_levels > _MAX_PRIORITY_LEVELS:
            raise InvalidArgument(f"priority_levels is {self.priority_levels}; it is at most {_MAX_PRIORITY_LEVELS}")
        if self.priority_levels and not 1 <= self.default_priority_level <= self.priority_levels:
            raise InvalidArgument(
                f"default_priority_level is {self.default_priority_level}; with {self.priority_levels} priority_levels "
                f"it is 1 to {self.priority_levels}"
            )
        for level in self.priority_queue_policy:
            if not 1 <= level <= self.priority_levels:
                raise InvalidArgument(
                    f"priority_queue_policy names the level {level}, but priority_levels is {self.priority_levels}"
                )
        if self.preserve_ordering and self.priority_levels > 1:
            raise InvalidArgument(
                f"preserve_ordering allows one priority level, but priority_levels is {self.priority_levels}"
            )
        policies = (self.default_queue_policy, *self.priority_queue_policy.values())
        if self.preserve_ordering and any(policy.timeout_action == "DELAY" for policy in policies):
            raise InvalidArgument("preserve_ordering does not go together with TIMEOUT_ACTION_DELAY")

    def level(self, priority: int) -> int:
        """The priority level of a request that asked for `priority`; one that does not exist is the default."""
        return priority if 1 <= priority <= self.priority_levels else self.default_priority_level

    def policy(self, level: int) -> QueuePolicy:
        """The queue policy of a level."""
        return self.priority_queue_policy.get(level, self.default_queue_policy)

    @classmethod
    def read(cls, message: ms.BatchingConfig) -> BatchingConfig:
        """The settings that a message describes. Raises: InvalidArgument."""
        largest = message.max_batch_size if message.HasField("max_batch_size") else DEFAULT_MAX_BATCH_SIZE
        return cls(
            max_batch_size=largest,
            preferred_batch_size=tuple(sorted(set(message.preferred_batch_size))),
            max_queue_delay_us=message.max_queue_delay_us,
            preserve_ordering=message.preserve_ordering,
            priority_levels=message.priority_levels,
            default_priority_level=message.default_priority_level,
            default_queue_policy=QueuePolicy.read(message.default_queue_policy),
            priority_queue_policy={
                level: QueuePolicy.read(policy) for level, policy in message.priority_queue_policy.items()
            },
        )

    def message(self) -> ms.BatchingConfig:
        """The settings as a message, with nothing left to a default."""
        return ms.BatchingConfig(
            max_batch_size=self.max_batch_size,
            preferred_batch_size=self.preferred_batch_size,
            max_queue_delay_us=self.max_queue_delay_us,
            preserve_ordering=self.preserve_ordering,
            priority_levels=self.priority_levels,
            default_priority_level=self.default_priority_level,
            default_queue_policy=self.default_queue_policy.message(),
            priority_queue_policy={level: policy.message() for level, policy in self.priority_queue_policy.items()},
        )
