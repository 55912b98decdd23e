"""Batches of drawn calls: as messages, as packed words, as both, and with words that were tampered with.

Knows the contract, and reads words on its own; does not know what a store holds.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire import packed

_WIDEST = (1 << 64) - 1
_ID_LIMIT = 1 << 48
# Ids of nothing, of the server, beyond all, and such as sessions have.
_IDS = [0, 1, 2, 3, 7, 30, 100, _ID_LIMIT - 1, _ID_LIMIT, _ID_LIMIT + 1, (1 << 56) - 1]
_COUNTS = [0, 1, 2, 3, 50, 255, 1 << 16, 1 << 31, 1 << 60, _WIDEST]


def written(calls: Sequence[pb.Call], chance: random.Random) -> pb.Batch:
    """The calls as one batch: most of the plain ones as words, the others as they are."""
    words: list[int] = []
    general = []
    for call in calls:
        plain = _plain(call) if chance.random() < 0.9 else None
        if plain is None:
            words.append(packed.GENERAL)
            general.append(call)
        else:
            words += plain
    return pb.Batch(calls=general, packed=packed.to_bytes(words))


def _plain(call: pb.Call) -> list[int] | None:
    """The words of a call, with what is let go before it; None where it is not plain."""
    words: list[int] = []
    for value in call.args:
        kind = value.WhichOneof("kind")
        if kind == "result" and 0 < value.result < _ID_LIMIT:
            words.append(value.result)
        elif kind == "integer" and -packed.INTEGER_LIMIT <= value.integer < packed.INTEGER_LIMIT:
            words.append(packed.integer(value.integer))
        elif kind == "number":
            words += [packed.NUMBER, packed.bits_of(value.number)]
        else:
            return None
    freed = [*call.frees, *(ref.id for ref in call.free_parts)]
    if call.kwargs or len(words) > packed.MAX_COUNT or max(freed, default=0) >= 1 << 64 - packed.KIND_BITS:
        return None
    let_go = [word for one in call.frees for word in packed.let_go(one)]
    let_go += [word for ref in call.free_parts for word in packed.let_go(ref.id, ref.path)]
    return [*let_go, packed.head(call.operation, len(words), call.context), call.id, *words]


def tampered(batch: pb.Batch, chance: random.Random, operations: int) -> pb.Batch:
    """The same batch with words that may break the rules, name what is not there, or call another operation."""
    words = packed.from_bytes(batch.packed)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randrange(len(words)) if words else 0
        match chance.randrange(8):
            case 0 if words:
                words[at] = _bent(words[at], chance, operations)
            case 1 if words:
                words[at] = _wild(chance, operations)
            case 2:
                words.insert(at, _wild(chance, operations))
            case 3 if len(words) > 1:
                del words[at]
            case 4 if words:
                words.insert(at, words[at])
            case 5 if words:
                other = chance.randrange(len(words))
                words[at], words[other] = words[other], words[at]
            case 6 if len(words) > 1:
                del words[max(1, at) :]
            case _:
                words += [_wild(chance, operations) for _ in range(chance.randrange(1, 4))]
    data = packed.to_bytes(words)
    if chance.random() < 0.15:
        data = data[: -chance.randrange(1, 8)]
    elif chance.random() < 0.1:
        data += bytes(chance.randrange(1, 8))
    changed = pb.Batch(calls=batch.calls, packed=data)
    if chance.random() < 0.1:
        # One more than there are words, or one less.
        if changed.calls and chance.random() < 0.5:
            del changed.calls[-1]
        else:
            changed.calls.append(pb.Call(id=chance.choice(_IDS), operation=chance.randrange(operations)))
    return changed


def _bent(word: int, chance: random.Random, operations: int) -> int:
    """A word with one of its parts changed, whatever it is."""
    match chance.randrange(6):
        case 0:
            return word ^ 1 << chance.randrange(64)
        case 1:
            return word & ~packed.KIND_MASK | chance.choice([0, 1, 2, 3, 4, 255])
        case 2:
            return (
                word & ~(packed.MAX_COUNT << packed.COUNT_SHIFT) | chance.choice([0, 1, 2, 255]) << packed.COUNT_SHIFT
            )
        case 3:
            number = chance.choice([operations - 1, operations, packed.MAX_OPERATION, chance.randrange(operations)])
            return word & ~(packed.MAX_OPERATION << packed.OPERATION_SHIFT) | number << packed.OPERATION_SHIFT
        case 4:
            context = chance.choice([0, 1, 2, 3, 4, 1000, packed.MAX_CONTEXT])
            return word & ~(packed.MAX_CONTEXT << packed.CONTEXT_SHIFT) | context << packed.CONTEXT_SHIFT
        case _:
            tag = chance.choice([0, 1, 2, 3, 4, 0x8000, 0xFFFF])
            return word & packed.LOW_MASK | tag << packed.TAG_SHIFT


def _wild(chance: random.Random, operations: int) -> int:
    """Some word."""
    match chance.randrange(8):
        case 0:
            return chance.getrandbits(64)
        case 1:
            return chance.choice(_COUNTS)
        case 2:
            return chance.choice(_IDS)
        case 3:
            return packed.integer(
                chance.choice([0, 1, -1, 2, 1 << 40, packed.INTEGER_LIMIT - 1, -packed.INTEGER_LIMIT])
            )
        case 4:
            return packed.NUMBER | chance.choice([0, 0, 1])
        case 5:
            number = chance.choice([chance.randrange(operations), operations, packed.MAX_OPERATION])
            return packed.head(number, chance.choice([0, 1, 2, 255]), chance.choice([0, 1, 5]))
        case 6:
            return chance.choice([packed.FREE, packed.PART]) | chance.choice(_IDS) << packed.KIND_BITS
        case _:
            return packed.GENERAL


def keeps_rules(batch: pb.Batch) -> bool:
    """Whether the words of a batch are what the contract allows."""
    if not batch.packed:
        return True
    return len(batch.packed) % 8 == 0 and None not in list(_calls(batch))


def calls_of(batch: pb.Batch) -> list[pb.Call]:
    """The calls of a batch in their order, up to where it breaks the rules."""
    if not batch.packed:
        return list(batch.calls)
    return [call for call in _calls(batch) if call is not None]


def _calls(batch: pb.Batch) -> Iterator[pb.Call | None]:
    """The calls; None, and nothing behind it, where the words break the rules."""
    words = struct.unpack(f"<{len(batch.packed) // 8}Q", batch.packed[: len(batch.packed) // 8 * 8])
    left = list(batch.calls)
    frees: list[int] = []
    parts: list[pb.Ref] = []
    at = 0
    while at < len(words):
        word, kind = words[at], words[at] & 0xFF
        # A word that would be behind the last one counts as none.
        behind = words[at + 1] if at + 1 < len(words) else _WIDEST
        size = {0: 1, 1: 2 + (word >> 8 & 0xFF), 2: 1, 3: 2 + behind}.get(kind, _WIDEST)
        if at + size > len(words) or (kind == 0 and (word or not left)):
            yield None
            return
        if kind == 2:
            frees.append(word >> 8)
        elif kind == 3:
            parts.append(pb.Ref(id=word >> 8, path=[step & 0xFFFF_FFFF for step in words[at + 2 : at + size]]))
        else:
            call = pb.Call()
            if kind == 0:
                call.CopyFrom(left.pop(0))
            else:
                call = pb.Call(id=behind, operation=word >> 16 & 0xFF_FFFF, context=word >> 40)
                call.args.extend(_arguments(words[at + 2 : at + size]))
            call.frees.extend(frees)
            call.free_parts.extend(parts)
            frees, parts = [], []
            yield call
        at += size
    if left:
        yield None


def _arguments(words: Sequence[int]) -> Iterator[pb.Value]:
    """What the words stand for; nothing, for what stands for nothing."""
    remaining = iter(words)
    for word in remaining:
        tag, low = word >> 48, word & (1 << 48) - 1
        if tag == 0:
            yield pb.Value(result=low)
        elif tag == 1:
            yield pb.Value(integer=low - (1 << 48) if low >> 47 else low)
        elif tag == 2:
            yield pb.Value(number=packed.number_of(next(remaining, 0)))
        else:
            yield pb.Value()
