"""A part of torch's own samples, run by tclient and by torch: results and gradients. opdb.py runs all of them."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.operations.opdb import difference, operators

# Every so many of them, one sample each.
_STEP = 37
_PART = [name for name, info in operators().items() if info.dtypes][3::_STEP]
# By kind: what torch draws, what is sparse, what takes a function of the caller, what lies anyhow.
_CHOSEN = [
    "uniform",
    "to_sparse",
    "nn.functional.triplet_margin_with_distance_loss",
    "as_strided",
    "signal.windows.hann",
]


@pytest.mark.parametrize("name", [*_CHOSEN, *_PART])
def test_torchs_samples_give_what_torch_gives(tc: ModuleType, name: str) -> None:
    assert difference(tc, operators()[name], 1) is None


def test_a_difference_is_told(tc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tc, "sin", tc.cos)
    assert "not close" in str(difference(tc, operators()["sin"], 1))
