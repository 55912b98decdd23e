"""torch.utils._pytree: the leaves of nested containers, and the same containers with other leaves.

Knows no tensors: whatever is no container of a known kind is a leaf.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

PyTree: TypeAlias = Any
Context: TypeAlias = Any
_IsLeaf: TypeAlias = Callable[[Any], bool] | None


class NodeDef(NamedTuple):
    """How a container is taken apart, and put together of its children and what else there is to know."""

    flatten: Callable[[Any], tuple[list[Any], Any]]
    unflatten: Callable[[list[Any], Any], Any]


class TreeSpec:
    """A container without its leaves: its kind, what else there is to know, and the specs of its children."""

    __slots__ = ("children_specs", "context", "num_children", "num_leaves", "num_nodes", "type")

    def __init__(self, kind: Any, context: Any, children_specs: list[TreeSpec]) -> None:
        self.type = kind
        self.context = context
        self.children_specs = children_specs
        self.num_children = len(children_specs)
        self.num_nodes: int = 1 + sum(child.num_nodes for child in children_specs)
        self.num_leaves: int = 1 if kind is None else sum(child.num_leaves for child in children_specs)

    def is_leaf(self) -> bool:
        """Whether it stands for one leaf."""
        return self.type is None

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The container with these leaves. Raises: ValueError if there are more or fewer than it holds."""
        given = list(leaves)
        if len(given) != self.num_leaves:
            raise ValueError(
                f"treespec.unflatten(leaves): `leaves` has length {len(given)} but the spec refers to a pytree that "
                f"holds {self.num_leaves} items ({self})."
            )
        return self._filled(iter(given))

    def flatten_up_to(self, tree: Any) -> list[Any]:
        """What stands in another container where this one has leaves. Raises: ValueError if they are not alike."""
        if self.type is None:
            return [tree]
        kind = _kind(tree)
        if kind is not self.type:
            raise ValueError(f"Node type mismatch; expected {self.type!r}, but got {type(tree)!r}.")
        children, _ = SUPPORTED_NODES[kind].flatten(tree)
        if len(children) != self.num_children:
            raise ValueError(f"Node arity mismatch; expected {self.num_children}, but got {len(children)}.")
        if isinstance(tree, dict):
            children = [tree[key] for key in (self.context[1] if kind is defaultdict else self.context)]
        return [leaf for spec, child in zip(self.children_specs, children, strict=True) for leaf in _up_to(spec, child)]

    def _filled(self, leaves: Any) -> Any:
        if self.type is None:
            return next(leaves)
        return SUPPORTED_NODES[self.type].unflatten(
            [child._filled(leaves) for child in self.children_specs], self.context
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeSpec) and (self.type, self.context, self.children_specs) == (
            other.type,
            other.context,
            other.children_specs,
        )

    def __hash__(self) -> int:
        return hash((self.type, self.num_children))

    def __repr__(self) -> str:
        return self._text(0)

    def _text(self, indent: int) -> str:
        if self.type is None:
            return "*"
        indent += 2
        head = f"TreeSpec({self.type.__name__}, {self.context}, ["
        parts = [child._text(indent) for child in self.children_specs]
        return head + (f",\n{' ' * indent}").join(parts) + "])"


LeafSpec = TreeSpec


def _up_to(spec: TreeSpec, tree: Any) -> list[Any]:
    return spec.flatten_up_to(tree)


def _dict(keys: Any, values: list[Any]) -> dict[Any, Any]:
    return dict(zip(keys, values, strict=True))


class namedtuple:  # the name that torch's specs show
    """Stands for all classes made by collections.namedtuple."""


SUPPORTED_NODES: dict[Any, NodeDef] = {
    tuple: NodeDef(lambda tree: (list(tree), None), lambda children, _: tuple(children)),
    list: NodeDef(lambda tree: (list(tree), None), lambda children, _: children),
    dict: NodeDef(lambda tree: (list(tree.values()), list(tree)), lambda children, keys: _dict(keys, children)),
    OrderedDict: NodeDef(
        lambda tree: (list(tree.values()), list(tree)), lambda children, keys: OrderedDict(_dict(keys, children))
    ),
    defaultdict: NodeDef(
        lambda tree: (list(tree.values()), [tree.default_factory, list(tree)]),
        lambda children, context: defaultdict(context[0], _dict(context[1], children)),
    ),
    deque: NodeDef(lambda tree: (list(tree), tree.maxlen), deque),
    namedtuple: NodeDef(lambda tree: (list(tree), type(tree)), lambda children, kind: kind(*children)),
}


def register_pytree_node(
    cls: type, flatten_fn: Callable[[Any], Any], unflatten_fn: Callable[[Any, Any], Any], **names: Any
) -> None:
    """Have a class of one's own taken apart and put together. Raises: ValueError if it is known already."""
    if cls in SUPPORTED_NODES:
        raise ValueError(f"{cls} is already registered as pytree node.")

    def flatten(tree: Any) -> tuple[list[Any], Any]:
        children, context = flatten_fn(tree)
        return list(children), context

    SUPPORTED_NODES[cls] = NodeDef(flatten, unflatten_fn)


_register_pytree_node = register_pytree_node


def _kind(tree: Any) -> Any:
    """The kind of container, or None for a leaf."""
    kind = type(tree)
    if kind in SUPPORTED_NODES:
        return kind
    return namedtuple if isinstance(tree, tuple) and hasattr(kind, "_fields") else None


def _take_apart(tree: Any, leaves: list[Any], is_leaf: _IsLeaf) -> TreeSpec:
    kind = None if is_leaf is not None and is_leaf(tree) else _kind(tree)
    if kind is None:
        leaves.append(tree)
        return TreeSpec(None, None, [])
    children, context = SUPPORTED_NODES[kind].flatten(tree)
    return TreeSpec(kind, context, [_take_apart(child, leaves, is_leaf) for child in children])


def tree_flatten(tree: PyTree, is_leaf: _IsLeaf = None) -> tuple[list[Any], TreeSpec]:
    """The leaves in order, and the container without them."""
    leaves: list[Any] = []
    return leaves, _take_apart(tree, leaves, is_leaf)


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> PyTree:
    """The container with these leaves. Raises: ValueError if there are more or fewer than it holds."""
    return treespec.unflatten(leaves)


def tree_leaves(tree: PyTree, is_leaf: _IsLeaf = None) -> list[Any]:
    """The leaves in order."""
    return tree_flatten(tree, is_leaf)[0]


tree_iter = tree_leaves


def tree_structure(tree: PyTree, is_leaf: _IsLeaf = None) -> TreeSpec:
    """The container without its leaves."""
    return tree_flatten(tree, is_leaf)[1]


def tree_is_leaf(tree: PyTree, is_leaf: _IsLeaf = None) -> bool:
    """Whether it is a leaf."""
    return (is_leaf is not None and is_leaf(tree)) or _kind(tree) is None


def tree_map(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: _IsLeaf = None) -> PyTree:
    """The container with what the function makes of its leaves, and of those at the same places in others.

    Raises: ValueError if the others are not like it.
    """
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [spec.flatten_up_to(rest) for rest in rests]
    return spec.unflatten(map(func, leaves, *others))


def tree_map_(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: _IsLeaf = None) -> PyTree:
    """Call the function with each leaf; gives the container itself."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def _only(kinds: Any, func: Callable[[Any], Any]) -> Callable[[Any], Any]:
    chosen = kinds if isinstance(kinds, (type, tuple)) else None

    def applied(leaf: Any) -> Any:
        fits = isinstance(leaf, chosen) if chosen is not None else kinds(leaf)
        return func(leaf) if fits else leaf

    return applied


def tree_map_only(kinds: Any, func: Callable[[Any], Any], tree: PyTree, is_leaf: _IsLeaf = None) -> PyTree:
    """As tree_map, for leaves of some classes; the others stay."""
    return tree_map(_only(kinds, func), tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: PyTree, is_leaf: _IsLeaf = None) -> bool:
    """Whether it holds for all leaves."""
    return all(map(pred, tree_leaves(tree, is_leaf)))


def tree_any(pred: Callable[[Any], bool], tree: PyTree, is_leaf: _IsLeaf = None) -> bool:
    """Whether it holds for any leaf."""
    return any(map(pred, tree_leaves(tree, is_leaf)))
