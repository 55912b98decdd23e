"""What a notebook shows of things: the same facts as their text, and nothing that a name could do to the page."""

from __future__ import annotations

from html.parser import HTMLParser
from types import ModuleType

import pytest


class _Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(thing: object) -> _Tags:
    return _Tags(thing._repr_html_())  # type: ignore[attr-defined]


@pytest.mark.parametrize("grad", [False, True], ids=["plain", "requires grad"])
def test_a_tensor_shows_what_it_is_and_torchs_text(tc: ModuleType, grad: bool) -> None:
    x = tc.arange(6.0).reshape(2, 3).requires_grad_(grad)
    page = shown(x)
    assert repr(x) in page.text
    assert page.text.startswith("tensor 2 × 3 · torch.float32 · cpu · 24 B")
    assert ("requires grad" in page.text) is grad


def test_a_tensor_of_no_dimension_and_a_sparse_one_are_shown_too(tc: ModuleType) -> None:
    assert shown(tc.tensor(1)).text.startswith("tensor with one element · torch.int64")
    sparse = tc.eye(2).to_sparse()
    assert repr(sparse) in shown(sparse).text


def test_a_module_shows_its_layers_and_their_parameters(tc: ModuleType) -> None:
    net = tc.nn.Sequential(tc.nn.Linear(2, 3), tc.nn.ReLU(), tc.nn.Sequential(tc.nn.Linear(3, 1)))
    page = shown(net)
    assert page.text.startswith("Sequential · 13 parameters · training")
    assert page.tags.count("tr") == 4
    assert "2.0Linearin_features=3, out_features=1, bias=True4" in page.text
    assert "not known yet" in shown(tc.nn.LazyLinear(3)).text
    assert shown(tc.nn.Linear(1000, 1000)).text.startswith("Linear · 1,001,000 parameters")


def test_a_long_module_is_cut(tc: ModuleType) -> None:
    page = shown(tc.nn.Sequential(*(tc.nn.ReLU() for _ in range(100))))
    assert "and 40 more" in page.text
    assert page.tags.count("tr") == 62


def test_models_and_sessions_are_shown(tc: ModuleType) -> None:
    served = tc.models.create("notebook-net", tc.nn.MLP([4, 2]))
    try:
        assert repr(served).partition("\n")[0] in shown(served).text
        row = "notebook-net1ready10input float32 (batch, 4) → output float32 (batch, 2)"
        assert row in shown(tc.models.list()).text
    finally:
        served.delete()
    assert served.name in shown(served).text  # gone, and shown as such
    session = tc.connect(served._session.address)
    with session:
        assert session.address in shown(session).text
    assert "closed" in shown(session).text


def test_names_are_text_and_no_markup(tc: ModuleType) -> None:
    class Evil(tc.nn.Module):  # type: ignore[misc, name-defined]
        def extra_repr(self) -> str:
            return "<img src=x onerror=alert(1)>"

    x = tc.ones(1)
    x.name = "<script>alert(1)</script>"
    for page in (shown(Evil()), shown(x)):
        assert set(page.tags) <= {"div", "b", "pre", "table", "tr", "td", "th"}
    assert "<script>" in shown(x).text
