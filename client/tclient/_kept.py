"""keep and recall: objects with their tensors, on the disk of the server under a name, and back.

What is written is the file that `save` would make, by the server, of tensors that are there already; what is around the
tensors goes along as its metadata. Knows tensors and what files hold of objects; does not know how they travel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tclient import serialization
from tclient._by_value import elements_of, tensor_of
from tclient._codec.device import device as device_of
from tclient._codec.dtypes import DTYPES
from tclient._exceptions import ServerFailed, TensorTypeError, TensorValueError
from tclient._issue import make_tensor
from tclient._outline import Reader, Writer
from tclient._safe_globals import Finder, WeightsOnly
from tclient._session import names
from tclient._session.modes import MODES, no_grad
from tclient._session.results import Decoder
from tclient._session.session import Session
from tclient._stored import Contents, Shelf
from tclient._tensor import Tensor
from tensorcompute.v1 import storage_service_pb2 as ss
from tensorcompute.v1 import tensor_pb2 as pb


def keep(session: Session, name: str, obj: Any, *, overwrite: bool) -> None:
    """See `tclient.keep`."""
    if MODES.recorder is not None:
        raise MODES.recorder.refused("keep", "writes to the server's disk")
    names.checked(name)
    kind = _kind_of(obj)
    if kind == "module":
        obj = obj.state_dict()
    with session.use(), no_grad():
        shelf = Shelf()
        writer = Writer(shelf.node)
        try:
            root = writer.value(obj)
            shelf.place()
        except TensorTypeError as error:
            raise TensorTypeError("keep" + str(error).removeprefix("save")) from None
        metadata = serialization.metadata_of(obj, root, writer.nodes, list(shelf.entries))
        # What is an array here is brought there first.
        sources = {
            each: source if isinstance(source, Tensor) else tensor_of(DTYPES[element], shape, source, "cpu")
            for each, (element, shape, source) in shelf.entries.items()
        }
        for each, source in sources.items():
            if source._ref.session is not session:
                raise TensorValueError(
                    f"keep: {each!r} is a tensor of another session, {source._ref.session!r}; keep it there, or move "
                    "it with x.to(session=…) first"
                )
        # An id that a call is still to make, the server does not know.
        session.synchronize()
        refs = [(each, pb.Ref(id=source._ref.id, path=source._ref.path)) for each, source in sources.items()]
        names.keep(session, name, refs, kind=kind, metadata=metadata, overwrite=overwrite)


def recall(session: Session, name: str, device: Any, *, weights_only: bool | None) -> Any:
    """See `tclient.recall`."""
    if MODES.recorder is not None:
        raise MODES.recorder.refused("recall", "reads from the server's disk")
    number = session.queue.next_id()
    with session.use(), no_grad():
        where = "" if device is None else str(device_of(device))
        answer = names.recall(session, name, number, where)
        tensors = _tensors(session, number, answer)

        def tensor(each: str, location: str = "") -> Tensor:
            return tensors[each]

        def data(each: str) -> np.ndarray[Any, Any]:
            return np.frombuffer(elements_of(tensors[each]), np.uint8)

        objects = answer.metadata.get(serialization.OBJECTS)
        if objects is None:
            return tensors
        contents = Contents(tensor, data)
        finder = Finder(weights_only=weights_only is not False)
        try:
            said = json.loads(objects)
            contents.reader = Reader(said["nodes"], finder, contents.makers())
            return contents.reader.value(said["root"])
        except WeightsOnly:
            raise
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            if weights_only is False:
                raise
            raise ServerFailed(f"recall: {name!r} does not describe its tensors: {error}") from None


def _tensors(session: Session, number: int, answer: ss.RecallResponse) -> dict[str, Tensor]:
    value = pb.Value(list=pb.Sequence(items=[pb.Value(tensor=each.tensor) for each in answer.tensors]))
    made = Decoder(session, number, session.queue.epoch, make_tensor).decode(value)
    return {each.name: tensor for each, tensor in zip(answer.tensors, made, strict=True)}


def _kind_of(obj: Any) -> str:
    if isinstance(obj, Tensor):
        return "tensor"
    if hasattr(obj, "state_dict") and hasattr(obj, "named_parameters"):
        return "module"
    if isinstance(obj, Mapping) and obj and all(isinstance(each, Tensor) for each in obj.values()):
        return "state_dict"
    return type(obj).__name__[:64]
