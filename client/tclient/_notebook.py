"""What a notebook shows of tensors, modules, models and sessions: HTML, in the colours that the notebook has.

Whatever a caller or the server named is escaped: it is text, and no markup. Needs nothing to be imported, as the
session does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tclient._session.session import Session
    from tclient._tensor import Tensor
    from tclient.models._served import ServedModel
    from tclient.nn.module import Module

_ESCAPED = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#x27;"}
_CELL = "padding:0.15em 0.8em;text-align:left;vertical-align:top"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_MAX_ROWS = 60
"""Lines of a table; what is beyond that is counted."""


def of_tensor(tensor: Tensor) -> str:
    """What it is, and below that the text that torch prints."""
    facts = ["tensor " + " × ".join(map(str, tensor.shape)) if tensor.shape else "tensor with one element"]
    facts += [str(tensor.dtype), str(tensor.device)]
    if str(tensor.layout) == "torch.strided":
        facts.append(size(tensor.numel() * tensor.element_size()))
    if tensor.requires_grad:
        facts.append("requires grad")
    if tensor.name:
        facts.insert(0, str(tensor.name))
    return _block(" · ".join(facts), f"<pre>{_escape(repr(tensor))}</pre>")


def of_module(module: Module) -> str:
    """Its layers, each with what it is made of and how many parameters it has."""
    rows = []
    for name, layer in module.named_modules():
        if name and not layer._modules:
            rows.append((name, layer._get_name(), layer.extra_repr(), _count(layer)))
    if not rows:
        rows.append(("", module._get_name(), module.extra_repr(), _count(module)))
    title = f"{module._get_name()} · {_count(module)} parameters · {'training' if module.training else 'evaluating'}"
    return _block(title, _table(("", "layer", "", "parameters"), rows))


def of_model(model: ServedModel) -> str:
    """Its line, and its layers as the server prints them."""
    line, _, layers = repr(model).partition("\n")
    return _block(line, f"<pre>{_escape(layers)}</pre>")


def of_models(models: Sequence[ServedModel]) -> str:
    """A line for each version of each."""
    rows = []
    for model in models:
        takes, gives = (", ".join(map(repr, infos)) for infos in (model.inputs, model.outputs))
        state, parameters = model.state, f"{model.parameter_count():,}"
        rows.append((model.name, str(model.version), state, parameters, f"{takes} → {gives}"))
    return _block(f"{len(rows)} models", _table(("name", "version", "state", "parameters", "takes → gives"), rows))


def of_session(session: Session) -> str:
    """Where it is, and what went over its connection."""
    stats = session.stats
    rows = [
        ("address", session.address),
        ("engine at", session.endpoint),
        ("device", ", ".join(each.name for each in session.opened.devices)),
        ("waits, batches, calls", f"{stats.waits:,}, {stats.batches:,}, {stats.calls:,}"),
        ("uploads, downloads, moves", f"{stats.uploads:,}, {stats.downloads:,}, {stats.moves:,}"),
    ]
    return _block(repr(session), _table((), rows))


def size(count: float) -> str:
    """A number of bytes for people: "1.5 MiB"."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def _escape(text: str) -> str:
    return text.translate(_ESCAPED)


def _count(module: Module) -> str:
    from tclient.nn.parameter import is_lazy

    parameters = list(module.parameters())
    if any(is_lazy(each) for each in parameters):
        return "not known yet"
    return f"{sum(each.numel() for each in parameters):,}"


def _block(title: str, content: str) -> str:
    return f'<div class="tclient"><div style="margin:0.2em 0"><b>{_escape(title)}</b></div>{content}</div>'


def _table(head: Sequence[str], rows: Sequence[Iterable[Any]]) -> str:
    parts = []
    if head:
        parts.append("<tr>" + "".join(f'<th style="{_CELL}">{_escape(each)}</th>' for each in head) + "</tr>")
    parts += [
        "<tr>" + "".join(f'<td style="{_CELL}">{_escape(str(each))}</td>' for each in row) + "</tr>"
        for row in rows[:_MAX_ROWS]
    ]
    if len(rows) > _MAX_ROWS:
        parts.append(f'<tr><td style="{_CELL}">and {len(rows) - _MAX_ROWS:,} more</td></tr>')
    return f"<table>{''.join(parts)}</table>"
