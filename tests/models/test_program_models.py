"""Programs as models, by the typed RPCs: what they compute alone and together, what is refused, what is on disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tests.models.networks import create, relu_mlp, statistics
from tests.models.programs import Name, ask_by_name, convolution, convolved, create_program, program
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.serving import ServerProcess
from tests.support.values import Kept, tensor_data, tensor_of

Code = grpc.StatusCode
F32 = torch.float32


def test_a_program_gives_what_torch_gives_whatever_the_sizes(anyone: Raw, name: str) -> None:
    described, weights = convolution()
    described.buffers.append("head.bias")
    made = create_program(anyone, name, described, weights)
    assert made.parameter_bytes == 4 * (4 * 27 + 4 + 20 + 5)
    assert (made.calls, made.parameters, made.is_batched, made.text) == (4, 4 * 27 + 4 + 20, True, "ConvNet()")
    assert list(made.inputs) == list(described.inputs)
    assert list(made.outputs) == list(described.outputs)
    assert made.flops_per_row > 0
    for sizes in ((1, 8, 9), (3, 8, 9), (64, 5, 4), (2, 1, 1)):
        images = torch.randn(sizes[0], 3, *sizes[1:])
        given = ask_by_name(anyone, name, {"image": images})
        torch.testing.assert_close(given, {"logits": convolved(images, weights)})


def test_requests_of_one_form_are_run_together_and_others_apart(anyone: Raw, name: str) -> None:
    described, weights = convolution()
    create_program(anyone, name, described, weights)
    images = [torch.randn(1, 3, 6, width) for width in (5, 7, 5, 7, 5, 9)]
    calls = [
        ms.MlpForwardCall(id=index, name=name, tensors=[ms.NamedTensor(name="image", data=tensor_data(image))])
        for index, image in enumerate(images)
    ]
    request = ms.ModelForwardStreamRequest(calls=calls).SerializeToString()
    answers = {
        answer.id: answer for part in anyone.send_stream("ModelForwardStream", [request]) for answer in part.answers
    }
    for index, image in enumerate(images):
        (output,) = answers[index].outputs.tensors
        assert output.name == "logits"
        torch.testing.assert_close(tensor_of(output.data), convolved(image, weights))
    counted = statistics(anyone, name)
    assert (counted.inference_count, counted.execution_count) == (6, 3)
    assert {batch.batch_size: batch.compute_infer.count for batch in counted.batches} == {3: 1, 2: 1, 1: 1}


def two_by_two(**fields: Any) -> ms.ServedProgram:
    """Two inputs of two dtypes, two outputs, rows that depend on each other."""
    return program(
        {"ids": (torch.int64, ("n",)), "keep": (torch.bool, ("n",))},
        {"picked": (F32, ("", 3)), "sum": (F32, (3,))},
        [
            ("rows", "nn.functional.embedding", (Name("ids"), Name("table")), {}),
            ("picked", "Tensor.__getitem__", (Name("rows"), Name("keep")), {}),
            ("sum", "sum", (Name("picked"), 0), {}),
        ],
        weights=("table",),
        is_batched=False,
        recorded={"n": 4},
        **fields,
    )


def test_several_inputs_and_outputs_that_are_not_batched(anyone: Raw, name: str) -> None:
    table = torch.arange(30.0).reshape(10, 3)
    create_program(anyone, name, two_by_two(), [table])
    with ThreadPoolExecutor(8) as pool:

        def ask(count: int) -> None:
            ids, keep = torch.randint(10, (count,)), torch.rand(count) > 0.5
            picked = table[ids][keep]
            given = ask_by_name(anyone, name, {"keep": keep, "ids": ids})
            torch.testing.assert_close(given, {"picked": picked, "sum": picked.sum(0)})

        list(pool.map(ask, range(1, 25)))
    counted = statistics(anyone, name)
    assert (counted.inference_count, counted.execution_count) == (24, 24)


def test_inputs_in_the_session_and_outputs_that_stay_there(session: RawSession, name: str) -> None:
    table = torch.arange(30.0).reshape(10, 3)
    create_program(session, name, two_by_two(), [table])
    ids = session.create(data=tensor_data(torch.tensor([1, 2, 3])))
    keep = ms.Operand(data=tensor_data(torch.tensor([True, False, True])))
    inputs = [
        ms.NamedOperand(name="ids", operand=ms.Operand(tensor=ids.id)),
        ms.NamedOperand(name="keep", operand=keep),
    ]
    response = session.ask("ModelForward", name=name, inputs=inputs, options={"keep": True})
    picked, total = response.outputs
    assert (picked.name, list(picked.output.tensor.shape), total.name) == ("picked", [2, 3], "sum")
    torch.testing.assert_close(session.get(picked.output.tensor.id), table[[1, 3]])
    assert not picked.output.HasField("data")
    response = session.ask("ModelForward", name=name, inputs=inputs)
    torch.testing.assert_close(tensor_of(response.outputs[1].output.data), table[[1, 3]].sum(0))


def test_what_a_model_returns_is_not_its_own_memory_nor_its_callers(session: RawSession, name: str) -> None:
    described = program(
        {"x": (F32, ("batch", 2))},
        {"same": (F32, ("batch", 2)), "part": (F32, ("batch", 2))},
        [
            ("same", "Tensor.view", (Name("x"), (-1, 2)), {}),
            ("part", "Tensor.expand", (Name("w"), (Name("rows"), 2)), {}),
            ("written", "Tensor.mul_", (Name("x"), 2), {}),
        ],
        weights=("w",),
        sizes={"rows": ms.SizeFormula(dimensions=["batch"], scale=1, divisor=1)},
    )
    create_program(session, name, described, [torch.tensor([5.0, 7.0])])
    x = session.create(data=tensor_data(torch.ones(3, 2)))
    inputs = [ms.NamedOperand(name="x", operand=ms.Operand(tensor=x.id))]
    outputs = session.ask("ModelForward", name=name, inputs=inputs, options={"keep": True}).outputs
    same, part = [output.output.tensor.id for output in outputs]
    assert session.get(x.id).tolist() == [[1, 1]] * 3
    assert session.get(same).tolist() == [[2, 2]] * 3
    for kept in (same, part):
        session.run(session.call(0, "Tensor.zero_", Kept(kept.id))).clean()
    assert session.get(x.id).tolist() == [[1, 1]] * 3
    with ThreadPoolExecutor(4) as pool:
        rows = [torch.full((1, 2), float(number)) for number in range(20)]
        given = list(pool.map(lambda row: ask_by_name(session, name, {"x": row}), rows))
    for row, answer in zip(rows, given, strict=True):
        torch.testing.assert_close(answer, {"same": row * 2, "part": torch.tensor([[5.0, 7.0]])})


def test_a_program_runs_with_the_default_dtype_that_it_says(session: RawSession, name: str) -> None:
    described = program(
        {"x": (torch.float64, ("batch", 2))},
        {"y": (torch.float64, ("batch", 2))},
        [("half", "tensor", (0.1,), {}), ("y", "add", (Name("x"), Name("half")), {})],
        default_dtype=pb.D_TYPE_FLOAT64,
    )
    create_program(session, name, described)
    x = torch.zeros(1, 2, dtype=torch.float64)
    assert ask_by_name(session, name, {"x": x})["y"].tolist() == [[0.1, 0.1]]
    session.run(session.call(0, "set_default_dtype", torch.float16)).clean()
    mine = session.create(data=tensor_data(x))
    inputs = [ms.NamedOperand(name="x", operand=ms.Operand(tensor=mine.id))]
    response = session.ask("ModelForward", name=name, inputs=inputs)
    assert tensor_of(response.outputs[0].output.data).tolist() == [[0.1, 0.1]]


REQUESTS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "missing": ({}, "'image' missing"),
    "unknown": ({"image": torch.ones(1, 3, 4, 4), "more": torch.ones(1)}, "there is no 'more'"),
    "dtype": ({"image": torch.ones(1, 3, 4, 4).double()}, "is float64, but the model takes float32 of shape"),
    "dimensions": ({"image": torch.ones(3, 4, 4)}, "it has 3 dimensions"),
    "channels": ({"image": torch.ones(1, 4, 4, 4)}, "dimension 1 is 4"),
    "no rows": ({"image": torch.ones(0, 3, 4, 4)}, "give at least one"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests_that_do_not_fit_are_refused(session: RawSession, name: str, case: str) -> None:
    described, weights = convolution()
    create_program(session, name, described, weights)
    inputs, naming = REQUESTS[case]
    with refused(Code.INVALID_ARGUMENT, naming=naming):
        ask_by_name(session, name, inputs)
    with refused(Code.INVALID_ARGUMENT, naming=naming):
        ask_by_name(session, name, inputs, options={"keep": True})


def test_what_torch_refuses_is_the_requests_fault_alone(anyone: Raw, name: str) -> None:
    described = program(
        {"ids": (torch.int64, ("batch",))},
        {"rows": (F32, ("batch", 3))},
        [("rows", "nn.functional.embedding", (Name("ids"), Name("table")), {})],
        weights=("table",),
    )
    table = torch.randn(10, 3)
    create_program(anyone, name, described, [table], batching={"max_queue_delay_us": 200_000, "max_batch_size": 4})

    def ask(number: int) -> Any:
        try:
            return ask_by_name(anyone, name, {"ids": torch.tensor([number])})["rows"]
        except grpc.RpcError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, (1, 2, 99, 3)))
    assert answers[2].code() is Code.INVALID_ARGUMENT
    assert "in `nn.functional.embedding`" in answers[2].details()
    torch.testing.assert_close(torch.cat([answers[0], answers[1], answers[3]]), table[[1, 2, 3]])


def test_layers_are_asked_by_name_too_and_programs_only_so(anyone: Raw, new_name: Callable[[], str]) -> None:
    network, layered, by_name = relu_mlp([4, 3]), new_name(), new_name()
    made = create(anyone, layered, network)
    assert [(each.name, [size.size for size in each.dimensions]) for each in (*made.inputs, *made.outputs)] == [
        ("input", [0, 4]),
        ("output", [0, 3]),
    ]
    rows = torch.randn(5, 4)
    torch.testing.assert_close(ask_by_name(anyone, layered, {"input": rows}), {"output": network(rows)})
    create_program(anyone, by_name, *convolution())
    with refused(Code.INVALID_ARGUMENT, naming="ModelForward"):
        anyone.ask("MlpForward", name=by_name, inputs=ms.Operand(data=tensor_data(rows)))


def linear(**changes: Any) -> ms.ServedProgram:
    """A sound program, some of which may be changed."""
    given: dict[str, Any] = {
        "inputs": {"x": (F32, ("batch", 4))},
        "outputs": {"y": (F32, ("batch", 3))},
        "calls": [("y", "nn.functional.linear", (Name("x"), Name("w")), {})],
        "weights": ("w",),
    }
    return program(**{**given, **changes})


def changed(**fields: Any) -> ms.ServedProgram:
    """A sound program with fields of the message replaced."""
    described = linear()
    for name in fields:
        described.ClearField(name)
    described.MergeFrom(ms.ServedProgram(**fields))
    return described


REFUSED: dict[str, tuple[ms.ServedProgram, str]] = {
    "nothing": (ms.ServedProgram(), "no inputs"),
    "no outputs": (changed(outputs=[]), "no outputs"),
    "a name twice": (changed(inputs=[linear().inputs[0]] * 2), "named twice"),
    "no name": (changed(inputs=[ms.TensorSpec(dtype=pb.D_TYPE_FLOAT32)]), "is named twice, or not by"),
    "no dtype": (changed(inputs=[ms.TensorSpec(name="x")]), "dtype 0 is not known"),
    "an unnamed dimension": (linear(inputs={"x": (F32, ("", 4))}), "is not named"),
    "a dimension no input has": (linear(outputs={"y": (F32, ("batch", "width"))}), "that no input has"),
    "no recorded size": (linear(recorded={}), "recorded_sizes has no size"),
    "a recorded size too large": (linear(recorded={"batch": 1 << 40}), "recorded_sizes has no size"),
    "too large to try": (
        linear(recorded={"batch": 1 << 20}, inputs={"x": (F32, ("batch", 4000))}),
        "record the program",
    ),
    "weights": (changed(weights=["w", "v"]), "there are 3 inputs, weights and sizes"),
    "rows that are not": (
        linear(inputs={"x": (F32, (2, 4))}, outputs={"y": (F32, (2, 3))}, recorded={}),
        "be one that",
    ),
    "an unknown operation": (linear(calls=[("y", "os.system", ("true",), {})]), "not in the table"),
    "a program within": (linear(calls=[("y", "tc.program", (1,), {})]), "tc.program cannot be a call of a model"),
    "a model within": (
        linear(calls=[("y", "tc.model_forward", ("other", 0, Name("x")), {})]),
        "tc.model_forward cannot be a call of a model",
    ),
    "a read": (linear(calls=[("y", "tc.numpy", (Name("x"),), {})]), "tc.numpy cannot be a call of a model"),
    "a slot that is not": (linear(calls=[("y", "add", (Name("x"), Kept(99)), {})]), "reads slot 99"),
    "random numbers": (linear(calls=[("y", "randn", (2, 3), {})], is_batched=False), "random numbers"),
    "a write to a weight": (
        linear(
            calls=[("v", "Tensor.zero_", (Name("w"),), {}), ("y", "nn.functional.linear", (Name("x"), Name("v")), {})]
        ),
        "writes to the weight 'w'",
    ),
    "a write through a view": (
        linear(
            calls=[
                ("v", "Tensor.view", (Name("w"), (-1,)), {}),
                ("u", "Tensor.add_", (Name("v"), 1), {}),
                ("y", "nn.functional.linear", (Name("x"), Name("w")), {}),
            ]
        ),
        "writes to the weight 'w'",
    ),
    "another dtype": (linear(outputs={"y": (torch.float64, ("batch", 3))}), "is described as float64"),
    "another shape": (linear(outputs={"y": (F32, ("batch", 4))}), "is described as"),
    "a batch that is fixed": (linear(calls=[("y", "zeros", (2, 3), {})]), "batch 3"),
    "no tensor": (linear(calls=[("y", "Tensor.dim", (Name("x"),), {})]), "outputs are dense tensors"),
    "two for one": (linear(result=(Name("x"), Name("y"))), "gives 2 outputs"),
    "a buffer of nothing": (linear(buffers=["v"]), "names buffers"),
    "a formula of nothing": (
        linear(sizes={"s": ms.SizeFormula(dimensions=["length"], scale=1, divisor=1)}),
        "a size is",
    ),
    "a division by zero": (linear(sizes={"s": ms.SizeFormula(scale=1)}), "a divisor of 1 or more"),
    "a formula without bounds": (
        linear(sizes={"s": ms.SizeFormula(dimensions=["batch"] * 8, scale=(1 << 63) - 1, divisor=1)}),
        "a size of the program is",
    ),
    "a default dtype of whole numbers": (linear(default_dtype=pb.D_TYPE_INT64), "a floating one"),
    "a text without end": (linear(text="x" * 300_000), "at most 262144"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_programs_that_are_not_sound_are_refused(anyone: Raw, name: str, case: str) -> None:
    described, naming = REFUSED[case]
    with refused(Code.INVALID_ARGUMENT, naming=naming):
        create_program(anyone, name, described, [torch.ones(3, 4)] * len(described.weights))
    with refused(Code.NOT_FOUND):
        anyone.ask("DescribeMlp", name=name)


def test_programs_are_back_after_a_restart_and_go_from_server_to_server(tmp_path: Path) -> None:
    described, weights = convolution()
    images, table = torch.randn(3, 3, 6, 5), torch.randn(10, 3)
    with ServerProcess("--data-dir", str(tmp_path / "data")) as server, Raw(server.address) as raw:
        made = create_program(raw, "conv", described, weights, batching={"max_batch_size": 9})
        create_program(raw, "pick", two_by_two(), [table], version=4)
        assert made.is_persistent
        before = ask_by_name(raw, "conv", {"image": images})
        raw.ask("UnloadMlp", name="conv")
        with refused(Code.FAILED_PRECONDITION, reason="MODEL_NOT_READY"):
            ask_by_name(raw, "conv", {"image": images})
        raw.ask("LoadMlp", name="conv")
        parts = raw.send_stream("DownloadMlp", [ms.DownloadMlpRequest(name="conv").SerializeToString()])
        file = b"".join(part.chunk for part in parts)
    with ServerProcess("--data-dir", str(tmp_path / "data")) as server, RawSession(server.address) as raw:
        assert [raw.ask("DescribeMlp", name="conv").mlp] == [made]
        assert torch.equal(ask_by_name(raw, "conv", {"image": images})["logits"], before["logits"])
        ids, keep = torch.tensor([4, 4]), torch.tensor([True, True])
        torch.testing.assert_close(ask_by_name(raw, "pick", {"ids": ids, "keep": keep})["picked"], table[ids])
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "conv.safetensors").write_bytes(file)
        with ServerProcess("--model-dir", str(elsewhere)) as second, Raw(second.address) as other:
            taken = other.ask("CreateMlp", name="conv", file=ms.WeightsFile(path="conv.safetensors")).mlp
            assert list(taken.inputs) == list(made.inputs)
            assert torch.equal(ask_by_name(other, "conv", {"image": images})["logits"], before["logits"])
        raw.ask("DeleteMlp", name="conv")
    assert not (tmp_path / "data/models/conv").exists()


def test_a_reload_while_requests_come_fails_none(anyone: Raw, name: str) -> None:
    described, weights = convolution()
    create_program(anyone, name, described, weights)
    images = torch.randn(1, 3, 6, 5)
    wanted = convolved(images, weights)
    with ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(ask_by_name, anyone, name, {"image": images}) for _ in range(200)]
        for _ in range(5):
            anyone.ask("LoadMlp", name=name)
        for each in under_way:
            torch.testing.assert_close(each.result()["logits"], wanted)
