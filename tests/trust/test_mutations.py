"""The table of defences says what there is: `python -m tests.trust.mutate` takes each away."""

from __future__ import annotations

import pytest

from tests.support.serving import ROOT
from tests.trust.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_defence_is_where_the_table_says(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.original) == 1
    assert mutation.original != mutation.mutated
    path, _, test = mutation.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8")
