"""What a batch of a model takes is charged to those who asked for its rows, and bounds what they may ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.engine.models.description import summarise
from tserver.engine.models.model import LayeredModel
from tserver.engine.shares import Share
from tserver.errors import Exhausted
from tserver.models.batching import BatchingConfig
from tserver.models.manager import ModelManager
from tserver.models.registry import Registry, ServedModel
from tserver.models.requests import Request


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """An engine that is run by hand, on which "bounded" has one second in a minute."""
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    limits = tmp_path / "limits.toml"
    limits.write_text('[principal."bounded"]\ncompute_s_per_min = 1.0\n')
    return Engine(Config(device="cpu", limits=str(limits)), on_fatal=pytest.fail)


def _served(engine: Engine) -> ServedModel:
    weights: list[tuple[torch.Tensor, torch.Tensor | None]] = [(torch.ones(2, 3), torch.zeros(2))]
    layers = [summarise(3, 2, ms.Activation(), has_bias=True)]
    model = LayeredModel(layers, weights, torch.float32, torch.device("cpu"))
    return Registry(engine).add("m", 0, model, BatchingConfig())


def _request(share: Share | None, rows: int) -> Request:
    data = torch.ones(rows, 3).numpy().tobytes()
    made = Request(rows, (data,), ((rows, 3),), len(data))
    made.share = share
    return made


def test_what_a_batch_takes_is_shared_out_by_rows_among_those_who_asked(timed: Engine) -> None:
    one, many = timed.share_of("one"), timed.share_of("many")
    served = _served(timed)
    batch = [_request(one, 1), _request(many, 3), _request(None, 4), _request(one, 1)]
    for request in batch:
        served.batcher.queue.put(request)
    served.batcher.run_slice(None, lambda: True)
    assert all(request.outputs is not None for request in batch)
    assert one.total_s > 0
    assert many.total_s == pytest.approx(one.total_s * 1.5)
    assert many.principal.used_s == pytest.approx(many.used_s)


def test_who_has_used_its_time_is_refused_and_told_when_to_come_again(timed: Engine) -> None:
    asyncio.run(_refused(timed))


async def _refused(timed: Engine) -> None:
    bounded, other = timed.share_of("bounded"), timed.share_of("other")
    served = _served(timed)
    models = ModelManager(timed, Registry(timed))
    models.put(served, _request(bounded, 1))
    served.batcher.run_slice(None, lambda: True)
    assert bounded.account is not None
    assert 0 < bounded.account.compute_s < 1
    bounded.account.compute(1.0)
    with pytest.raises(Exhausted, match="compute_s_per_min") as refused:
        models.put(served, _request(bounded, 1))
    assert 0 < float(refused.value.details["retry_after_s"]) <= 60
    models.put(served, _request(other, 1))
    assert len(served.batcher.queue) == 1
