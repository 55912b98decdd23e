"""How often and how fast one model was run. Knows nothing of how it is run, nor of who reads this.

Written by the engine's thread and by the one that takes requests, each its own fields; read by any. Numbers only grow.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from tensorcompute.v1 import model_service_pb2 as ms


@dataclass(slots=True)
class Duration:
    """How often something was done, and the nanoseconds that took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count something that was done `count` times and took `ns` each time."""
        self.count += count
        self.ns += ns * count

    def message(self) -> ms.DurationTotal:
        """The two as a message."""
        return ms.DurationTotal(count=self.count, ns=self.ns)


# Seconds: the upper ends of the buckets of a histogram; the last bucket is all above.
LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Histogram:
    """How many took how long: a count for each bucket, not cumulated."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1


@dataclass(slots=True)
class BatchDurations:
    """The runs of one number of rows."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class ModelStatistics:
    """Counts of one version of a model, since it came to this run of the server.

    queue, compute_* and success count requests, as Triton does: each request of a batch is charged the batch's time.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    # Rows that were run, and the forward passes that took.
    inference_count: int = 0
    execution_count: int = 0
    # By the number of rows.
    batch_sizes: dict[int, BatchDurations] = field(default_factory=dict)
    # Milliseconds since 1970; 0 is never.
    last_inference_ms: int = 0
    # Requests by the time from their arrival to their outputs, and by that in the queue.
    latency: Histogram = field(default_factory=Histogram)
    waited: Histogram = field(default_factory=Histogram)
    bytes_in: int = 0
    bytes_out: int = 0
    rejected: int = 0
    timed_out: int = 0
    cancelled: int = 0
    # Requests that were taken or refused in vain, by the reason of the error.
    failures: dict[str, int] = field(default_factory=dict)

    def failed(self, reason: str) -> None:
        """Count a failure by its reason."""
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def batch(self, rows: int) -> BatchDurations:
        """The durations of runs of that many rows."""
        found = self.batch_sizes.get(rows)
        if found is None:
            found = self.batch_sizes[rows] = BatchDurations()
        return found

    def message(self, name: str, version: int, waiting: int) -> ms.MlpStatistics:
        """All that the contract tells, as a message."""
        return ms.MlpStatistics(
            name=name,
            version=version,
            waiting=waiting,
            last_inference_ms=self.last_inference_ms,
            inference_count=self.inference_count,
            execution_count=self.execution_count,
            rejected=self.rejected,
            timed_out=self.timed_out,
            cancelled=self.cancelled,
            success=self.success.message(),
            fail=self.fail.message(),
            queue=self.queue.message(),
            compute_input=self.compute_input.message(),
            compute_infer=self.compute_infer.message(),
            compute_output=self.compute_output.message(),
            batches=[
                ms.BatchStatistics(
                    batch_size=rows,
                    compute_input=batch.compute_input.message(),
                    compute_infer=batch.compute_infer.message(),
                    compute_output=batch.compute_output.message(),
                )
                for rows, batch in sorted(self.batch_sizes.copy().items())
            ],
        )
