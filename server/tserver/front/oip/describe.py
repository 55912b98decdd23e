"""Models, in the protocol's words: metadata, configuration, statistics. Reads the registry; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensorcompute.oip import inference_pb2 as oip
from tserver.front.oip.tensors import DATATYPES, datatype_of

if TYPE_CHECKING:
    from tensorcompute.v1 import model_service_pb2 as ms
    from tserver.engines.port import Served
    from tserver.models.batching import BatchingConfig, QueuePolicy

PLATFORM = "tensorcompute"

_CODES = {name: oip.DataType.Value(f"TYPE_{name}") for name in DATATYPES}


def metadata(served: Served, versions: Sequence[Served], name: str = "") -> oip.ModelMetadataResponse:
    """The inputs and outputs of one version, among all versions. Here as in all of these, `name` is what the caller
    calls it; empty as the registry does.

    Raises: Unimplemented for no datatypes of the protocol.
    """
    name = name or served.name
    response = oip.ModelMetadataResponse(
        name=name, versions=[str(each.version) for each in versions], platform=PLATFORM
    )
    for specs, told in ((served.inputs, response.inputs), (served.outputs, response.outputs)):
        for spec in specs:
            told.add(name=spec.name, datatype=datatype_of(name, spec).name, shape=spec.shape)
    return response


def config(served: Served, name: str = "") -> oip.ModelConfig:
    """How a version is served. Raises: as `metadata`."""
    name = name or served.name
    answer = oip.ModelConfig(name=name, platform=PLATFORM, backend=PLATFORM)
    if served.is_batched:
        answer.max_batch_size = min(served.batching.max_batch_size, (1 << 31) - 1)
        answer.dynamic_batching.CopyFrom(_batching(served.batching))
    # Where requests are batched, the first dimension goes without saying.
    for spec in served.inputs:
        answer.input.add(
            name=spec.name, data_type=_CODES[datatype_of(name, spec).name], dims=spec.shape[served.is_batched :]
        )
    for spec in served.outputs:
        answer.output.add(
            name=spec.name, data_type=_CODES[datatype_of(name, spec).name], dims=spec.shape[served.is_batched :]
        )
    answer.model_transaction_policy.decoupled = False
    return answer


def statistics(served: Served, counted: ms.MlpStatistics, name: str = "") -> oip.ModelStatistics:
    """How often and how fast a version was run."""
    answer = oip.ModelStatistics(
        name=name or served.name,
        version=str(served.version),
        last_inference=counted.last_inference_ms,
        inference_count=counted.inference_count,
        execution_count=counted.execution_count,
        inference_stats=oip.InferStatistics(
            success=_duration(counted.success),
            fail=_duration(counted.fail),
            queue=_duration(counted.queue),
            compute_input=_duration(counted.compute_input),
            compute_infer=_duration(counted.compute_infer),
            compute_output=_duration(counted.compute_output),
        ),
    )
    for batch in counted.batches:
        answer.batch_stats.add(
            batch_size=batch.batch_size,
            compute_input=_duration(batch.compute_input),
            compute_infer=_duration(batch.compute_infer),
            compute_output=_duration(batch.compute_output),
        )
    if served.state == "READY":
        kind, _, number = served.device.partition(":")
        answer.memory_usage.add(
            type="GPU" if kind == "cuda" else "CPU", id=int(number or 0), byte_size=served.parameter_bytes
        )
    return answer


def index(served: Sequence[tuple[str, Served]], *, only_ready: bool) -> oip.RepositoryIndexResponse:
    """The list of versions, each with the name that the caller has for it."""
    response = oip.RepositoryIndexResponse()
    for name, each in served:
        if each.state == "READY" or not only_ready:
            response.models.add(name=name, version=str(each.version), state=each.state, reason=each.reason)
    return response


def _batching(batching: BatchingConfig) -> oip.ModelDynamicBatching:
    return oip.ModelDynamicBatching(
        preferred_batch_size=batching.preferred_batch_size,
        max_queue_delay_microseconds=batching.max_queue_delay_us,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        default_queue_policy=_policy(batching.default_queue_policy),
        priority_queue_policy={level: _policy(policy) for level, policy in batching.priority_queue_policy.items()},
    )


def _policy(policy: QueuePolicy) -> oip.ModelQueuePolicy:
    is_delay = policy.timeout_action == "DELAY"
    return oip.ModelQueuePolicy(
        timeout_action=oip.ModelQueuePolicy.DELAY if is_delay else oip.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=policy.default_timeout_us,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )


def _duration(duration: ms.DurationTotal) -> oip.StatisticDuration:
    return oip.StatisticDuration(count=duration.count, ns=duration.ns)
