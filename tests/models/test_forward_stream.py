"""Forward passes of kept networks on a stream: many requests and answers under way at once."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import grpc
import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import create, relu_mlp, statistics
from tests.support.raw import Raw
from tests.support.serving import HasAddress, wait_until
from tests.support.values import tensor_data, tensor_of

# Longer than any test: requests are held back until the settings change or a batch is full.
HELD = 60_000_000
Code = grpc.StatusCode


def stream(raw: Raw, *messages: list[ms.MlpForwardCall]) -> dict[int, ms.MlpForwardAnswer]:
    """The answers to messages of requests, by their ids."""
    requests = [ms.MlpForwardStreamRequest(calls=calls).SerializeToString() for calls in messages]
    answers = [answer for response in raw.send_stream("MlpForwardStream", requests) for answer in response.answers]
    assert len({answer.id for answer in answers}) == len(answers)
    return {answer.id: answer for answer in answers}


def test_a_stream_answers_every_request_and_one_that_fails_does_not_end_it(anyone: Raw, name: str) -> None:
    network = relu_mlp([4, 3])
    create(anyone, name, network)
    rows = torch.randn(40, 4)
    calls = [ms.MlpForwardCall(id=index, name=name, inputs=tensor_data(row)) for index, row in enumerate(rows)]
    bad = [
        ms.MlpForwardCall(id=100, name=name, inputs=tensor_data(torch.ones(5))),
        ms.MlpForwardCall(id=101, name="nobody", inputs=tensor_data(torch.ones(4))),
        ms.MlpForwardCall(id=102, name=name, inputs=tensor_data(torch.ones(70_000, 4))),
    ]
    answers = stream(anyone, [*calls[:10], bad[0]], bad[1:], calls[10:])
    for index, row in enumerate(rows):
        torch.testing.assert_close(tensor_of(answers[index].output), network(row))
        assert answers[index].version == 1
    failures = {number: answers[number].failure for number in (100, 101, 102)}
    assert [failures[number].code for number in failures] == [
        code.value[0] for code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.INVALID_ARGUMENT)
    ]
    assert "nobody" in failures[101].message


def test_answers_of_all_sizes_come_in_messages_that_every_client_takes(anyone: Raw, name: str) -> None:
    network = relu_mlp([4, 2000])
    create(anyone, name, network, batching={"max_batch_size": 4000})
    counts = [1, 520, 2, 100, 131, 500, 132, 525]
    inputs = [torch.randn(count, 4) for count in counts]
    calls = [ms.MlpForwardCall(id=index, name=name, inputs=tensor_data(rows)) for index, rows in enumerate(inputs)]
    requests = [ms.MlpForwardStreamRequest(calls=calls).SerializeToString()]
    responses = list(anyone.send_stream("MlpForwardStream", requests))
    assert all(response.ByteSize() <= 4 << 20 for response in responses)
    answers = {answer.id: answer for response in responses for answer in response.answers}
    for index, rows in enumerate(inputs[:-1]):
        torch.testing.assert_close(tensor_of(answers[index].output), network(rows))
    refusal = answers[len(inputs) - 1].failure
    assert (refusal.reason, refusal.retry_after_s) == ("TOO_LARGE_FOR_A_MESSAGE", 0.0)
    assert statistics(anyone, name).inference_count == sum(counts[:-1])


def test_the_requests_of_a_message_are_run_together(anyone: Raw, name: str) -> None:
    create(anyone, name, relu_mlp([4, 3]))
    calls = [ms.MlpForwardCall(id=index, name=name, inputs=tensor_data(torch.ones(4))) for index in range(64)]
    assert len(stream(anyone, calls)) == 64
    assert statistics(anyone, name).execution_count == 1


def test_a_stream_refuses_an_id_that_is_under_way_and_honours_deadlines(anyone: Raw, name: str) -> None:
    create(anyone, name, relu_mlp([4, 3]), batching={"max_queue_delay_us": HELD})
    call = ms.MlpForwardCall(id=1, name=name, inputs=tensor_data(torch.ones(4)), deadline_us=100_000)
    requests = [ms.MlpForwardStreamRequest(calls=[call, call]).SerializeToString()]
    (first, second) = [
        answer for response in anyone.send_stream("MlpForwardStream", requests) for answer in response.answers
    ]
    assert (first.id, first.failure.reason) == (1, "INVALID_ARGUMENT")
    assert (second.id, second.failure.reason) == (1, "DEADLINE_EXCEEDED")


def test_a_stream_that_is_dropped_takes_its_requests_along(server: HasAddress, anyone: Raw, name: str) -> None:
    create(anyone, name, relu_mlp([4, 3]), batching={"max_queue_delay_us": HELD})
    calls = [ms.MlpForwardCall(id=index, name=name, inputs=tensor_data(torch.ones(4))) for index in range(5)]
    with Raw(server.address) as raw:
        opened = raw.channel.stream_stream("/tensorcompute.v1.ModelService/MlpForwardStream")
        call = opened(iter([ms.MlpForwardStreamRequest(calls=calls).SerializeToString()]))
        wait_until(lambda: statistics(anyone, name).waiting == 5, 10.0, "five requests wait")
        call.cancel()
        wait_until(lambda: statistics(anyone, name).waiting == 0, 10.0, "they have left the queue")
    assert statistics(anyone, name).cancelled == 5


def test_a_stream_whose_answers_are_not_taken_is_not_run_on(anyone: Raw, name: str) -> None:
    specs = [ms.LayerSpec(in_features=1, out_features=50_000)]
    anyone.ask("CreateMlp", name=name, layers=specs)
    sent = 2000
    answer_bytes = sent * 200_000

    def requests() -> Iterator[bytes]:
        for number in range(sent):
            call = ms.MlpForwardCall(id=number, name=name, inputs=tensor_data(torch.ones(1)))
            yield ms.MlpForwardStreamRequest(calls=[call]).SerializeToString()
        is_over.wait(60.0)

    is_over = threading.Event()
    opened = anyone.channel.stream_stream(
        "/tensorcompute.v1.ModelService/MlpForwardStream", None, ms.MlpForwardStreamResponse.FromString
    )
    call = opened(requests())
    ran: list[int] = []
    # As soon as nothing more is run, though there is more to run.
    wait_until(lambda: is_steady(ran, statistics(anyone, name).success.count), 20.0, "the stream stands", 0.3)
    assert ran[-1] * 200_000 < answer_bytes / 2
    answers = itertools.chain.from_iterable(response.answers for response in call)
    assert {answer.id for answer in itertools.islice(answers, sent)} == set(range(sent))
    is_over.set()
    call.cancel()


def is_steady(seen: list[int], now: int) -> bool:
    seen.append(now)
    return now > 0 and seen[-3:] == [now] * 3
