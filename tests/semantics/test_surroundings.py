"""What scripts touch around their work: GPUs, settings, default devices, and the scaling of losses."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.semantics.harness import Watch, assert_same


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Settings are the process's: they go back to what they were."""
    import tclient

    # torch's own samples, which other tests import, leave its flags frozen for the whole process.
    with getattr(torch.backends, "__allow_nonbracketed_mutation")():
        # An engine that other tests run in this process has torch warn always.
        always = torch.is_warn_always_enabled()
        torch.set_warn_always(False)
        yield
        torch.set_warn_always(always)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for module in (torch, tclient):
                module.use_deterministic_algorithms(False)
                module.set_float32_matmul_precision("highest")
                module.set_default_device(None)
                module.backends.cudnn.deterministic = module.backends.cudnn.benchmark = False


def what_cuda_says_without_a_gpu(m: Any, t: Watch) -> None:
    cuda = m.cuda
    t.show(cuda.is_available(), cuda.device_count(), cuda.is_initialized(), cuda.is_bf16_supported())
    t.show(cuda.empty_cache(), cuda.memory_allocated(), cuda.max_memory_allocated(), cuda.memory_reserved())
    t.show(cuda.max_memory_reserved(), cuda.get_arch_list(), cuda.manual_seed_all(3), cuda.manual_seed(3))
    m.manual_seed(1)
    # Numbers of the host are not the GPU's.
    t.show(cuda.manual_seed(4), cuda.manual_seed_all(5), cuda.seed_all(), m.rand(2), cuda.default_generators)
    t.show(len(cuda.memory_stats()), cuda.seed(), cuda.get_rng_state_all(), cuda.set_rng_state_all([]))
    t.show(cuda.set_device(-1), m.device("cuda") if cuda.is_available() else m.device("cpu"))
    with cuda.stream(None), cuda.device(-1), cuda.device_of(m.ones(1)):
        t.show(m.ones(2))
    t.tries(
        lambda: cuda.get_device_name(),
        lambda: cuda.get_device_name(0),
        lambda: cuda.get_device_properties(0),
        lambda: cuda.get_device_capability(),
        lambda: cuda.current_device(),
        lambda: cuda.synchronize(),
        lambda: cuda.mem_get_info(),
        lambda: cuda.current_stream(),
        lambda: cuda.get_rng_state(),
        lambda: cuda.initial_seed(),
        lambda: cuda.init(),
        lambda: cuda.ipc_collect(),
        lambda: cuda.memory_summary(),
        lambda: cuda.Stream(),
        lambda: cuda.Event(enable_timing=True),
    )


def backends_and_settings(m: Any, t: Watch) -> None:
    b = m.backends
    t.show(b.cudnn.enabled, b.cudnn.benchmark, b.cudnn.deterministic, b.cudnn.allow_tf32, b.cudnn.version())
    t.show(b.cudnn.is_available(), b.cuda.matmul.allow_tf32, b.cuda.is_built(), b.mps.is_available())
    t.show(b.mps.is_built(), b.mkldnn.is_available(), b.mkl.is_available(), b.openmp.is_available())
    t.show(b.cudnn.is_acceptable(m.ones(1)), b.cuda.flash_sdp_enabled(), b.cuda.math_sdp_enabled())
    b.cudnn.deterministic = True
    b.cudnn.benchmark = True
    b.cuda.matmul.allow_tf32 = False
    t.show(b.cudnn.deterministic, b.cudnn.benchmark)
    with b.cudnn.flags(enabled=True, benchmark=False, deterministic=False):
        t.show(b.cudnn.deterministic, b.cudnn.benchmark)
    t.show(b.cudnn.deterministic, b.cudnn.benchmark, m.get_float32_matmul_precision())
    m.set_float32_matmul_precision("high")
    m.set_float32_matmul_precision("unknown")
    t.show(m.get_float32_matmul_precision(), m.are_deterministic_algorithms_enabled())
    m.use_deterministic_algorithms(True, warn_only=True)
    t.show(m.are_deterministic_algorithms_enabled(), m.is_deterministic_algorithms_warn_only_enabled())
    m.use_deterministic_algorithms(True)
    t.show(m.get_deterministic_debug_mode(), m.is_deterministic_algorithms_warn_only_enabled())
    m.set_deterministic_debug_mode("default")
    t.show(m.get_deterministic_debug_mode(), m.is_warn_always_enabled())
    t.tries(
        lambda: m.set_num_threads(0),
        lambda: m.set_num_threads(1.5),
        lambda: m.set_deterministic_debug_mode("other"),
        lambda: m.set_deterministic_debug_mode(7),
    )


def default_devices(m: Any, t: Watch) -> None:
    t.show(m.get_default_device())
    m.set_default_device("cpu")
    t.show(
        m.get_default_device(), m.zeros(2), m.tensor([1]), m.eye(2), m.fft.fftfreq(4), m.nn.Linear(2, 1).weight.shape
    )
    with m.device("cuda"), m.device("cpu") as inner:
        t.show(inner, m.get_default_device(), m.ones(2), m.arange(3), m.as_tensor([1.0]))
    with m.device("cuda:1"):
        t.show(m.get_default_device())
        t.refuses(lambda: m.ones(2).sum())
        t.show(m.ones(2, device="cpu"), m.zeros_like(m.ones(1, device="cpu")))
    m.set_default_device(None)

    t.show(m.zeros(1), m.get_default_device())
    m.set_default_tensor_type("torch.DoubleTensor")
    t.show(m.zeros(1), m.get_default_dtype())
    m.set_default_tensor_type(m.FloatTensor)
    t.show(m.zeros(1))
    t.tries(
        lambda: m.set_default_tensor_type("torch.cuda.FloatTensor"),
        lambda: m.set_default_tensor_type(m.LongTensor),
        lambda: m.set_default_tensor_type(3),
    )


def scaled_losses(m: Any, t: Watch) -> None:
    p = m.nn.Parameter(m.ones(2))
    optimizer = m.optim.SGD([p], lr=0.1)
    scaler = m.amp.GradScaler("cpu", growth_interval=2)
    t.show(scaler.state_dict(), scaler.is_enabled())
    t.tries(lambda: scaler.step(optimizer), lambda: scaler.update(), lambda: scaler.unscale_(optimizer))
    for factor in (1.0, 1.0, float("inf"), 2.0, float("nan"), 1.0):
        optimizer.zero_grad()
        with m.amp.autocast("cpu", enabled=False):
            loss = (p**2).sum() * factor
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        t.show(p.grad)
        scaler.step(optimizer)
        t.tries(lambda: scaler.step(optimizer), lambda: scaler.unscale_(optimizer))
        scaler.update()
        t.show(p, scaler.get_scale(), scaler.state_dict())
    t.show(scaler.scale([p, (p,)]), scaler.update(5.0), scaler.get_scale(), scaler.update(m.tensor(8.0)))
    again = m.amp.GradScaler("cpu")
    again.load_state_dict(scaler.state_dict())
    t.show(again.state_dict(), again.get_growth_factor(), again.get_backoff_factor(), again.get_growth_interval())
    other = m.optim.SGD([m.nn.Parameter(m.ones(1))], lr=1.0)
    again.scale(p.sum())
    t.tries(
        lambda: again.scale(3),
        lambda: again.step(other),
        lambda: again.update(),
        lambda: again.load_state_dict({}),
        lambda: m.amp.GradScaler("cpu", growth_factor=1.0),
        lambda: m.amp.GradScaler("cpu", backoff_factor=1.0),
    )
    off = m.cuda.amp.GradScaler()
    t.show(
        off.state_dict(), off.get_scale(), off.is_enabled(), off.scale(p) is p, off.update(), off.unscale_(optimizer)
    )
    with m.cuda.amp.autocast(), m.cuda.amp.autocast(enabled=False):
        t.show(m.ones(2, 2) @ m.ones(2, 2))
    t.show(m.amp.is_autocast_available("cpu"), m.amp.is_autocast_available("cuda"), m.amp.autocast is m.autocast)


@pytest.mark.parametrize(
    "program",
    [what_cuda_says_without_a_gpu, backends_and_settings, default_devices, scaled_losses],
    ids=lambda p: p.__name__,
)
def test_the_surroundings_of_a_script_are_torch_s(tc: ModuleType, program: Any) -> None:
    if tc.cuda.is_available() and program is not default_devices:
        pytest.skip("the oracle is a torch without a GPU")
    assert_same(program, tc, synchronous=False)


@pytest.mark.parametrize(
    "name", ["backends.cudnn", "backends.cuda.matmul", "cuda.amp", "amp", "autograd.functional", "autograd.variable"]
)
def test_what_scripts_import_by_its_full_name_is_a_module(name: str) -> None:
    assert importlib.import_module(f"tclient.{name}").__doc__


def test_a_setting_that_is_the_server_s_is_noted_with_a_warning(tc: ModuleType) -> None:
    with pytest.warns(UserWarning, match="tserver serve --threads") as said:
        tc.set_num_threads(3)
    assert said[0].filename == __file__
    assert tc.get_num_threads() == 3
    with pytest.warns(UserWarning, match="stays as it is") as said:
        tc.use_deterministic_algorithms(True)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tc.backends.cudnn.benchmark = True
        tc.use_deterministic_algorithms(False)


def test_a_default_device_is_the_thread_s(tc: ModuleType) -> None:
    import threading

    seen = []
    with tc.device("cuda"):
        thread = threading.Thread(target=lambda: seen.append(tc.get_default_device()))
        thread.start()
        thread.join()
    assert seen == [tc.device("cpu")]
