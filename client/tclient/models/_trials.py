"""A network as it runs at some sizes, on inputs that are drawn for it.

Knows descriptions of inputs and recordings; does not know which sizes to try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tclient._exceptions import TensorError
from tclient._session.session import Session
from tclient._tensor import Tensor
from tclient.models._inputs import Sizes, Spec
from tclient.models._network import Network, is_refusal
from tclient.models._recorder import Sample, record

# Inputs of more elements are not tried.
_MOST_ELEMENTS = 1 << 25
_SEED = 20_240_229


class Trials:
    """A network with descriptions of its inputs, as it runs at some sizes."""

    def __init__(
        self, network: Network, session: Session, specs: Sequence[Spec], keywords: Mapping[str, int] | None
    ) -> None:
        self.network, self.session, self.specs, self.keywords = network, session, specs, keywords
        self.random = np.random.default_rng(_SEED)
        self.names = list(dict.fromkeys(each for spec in specs for each in spec.shape if isinstance(each, str)))
        firsts = {spec.shape[0] if spec.shape else None for spec in specs}
        first = firsts.pop() if len(firsts) == 1 else None
        # The dimension that is the first one of all inputs.
        self.rows = first if isinstance(first, str) else None

    def draw(self, sizes: Sizes, *, fresh: bool) -> list[Tensor]:
        """Inputs of these sizes."""
        return [spec.draw(sizes, self.random, fresh=fresh) for spec in self.specs]

    def record(self, sizes: Sizes) -> Sample:
        """The network as it runs at these sizes. Raises: what `record` raises."""
        return record(self.network, self.session, sizes, self.draw(sizes, fresh=False), self.keywords)

    def try_to_record(self, sizes: Sizes) -> Sample | Exception:
        """The same, or why it does not run. Raises: an error of `not_servable`."""
        for spec in self.specs:
            if int(np.prod(spec.shape_at(sizes), dtype=object)) > _MOST_ELEMENTS:
                return TensorError(f"{spec.name} would have more than {_MOST_ELEMENTS} elements")
        try:
            return self.record(sizes)
        except Exception as error:
            if is_refusal(error):
                raise
            return error
