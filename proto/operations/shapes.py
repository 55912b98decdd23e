"""What `help` says of the shapes of an operation, in our words: by the tags of torch's schemas, or reviewed by name."""

from __future__ import annotations

from operations import schemas
from operations.lists import words
from operations.surface import Candidate

EACH = "(*) -> (*): element by element"
BROADCAST = "the arguments broadcast; the result has the shape that they broadcast to"
REDUCTION = "the dimensions that dim names are gone, or 1 with keepdim=True; without dim there is one element"
IN_PLACE = "the changed tensor keeps its shape; the other arguments broadcast to it"
VIEW = "the result is a view where torch can make one: it then shares the elements of the input"
DATA = "how large the result is depends on the values of the input"
LIKE = "(*) -> (*): the shape of the input"
GIVEN = "the shape that size gives"
LOSS = "input (*) and target (*) -> (), or (*) with reduction='none'"
POOL = "(N, C, *) or (C, *) -> the same with fewer positions in *: floor((L + 2·padding - kernel) / stride) + 1"
FFT = "(*, n) -> (*, m): transforms along dim, other dimensions are batches"

# Operators of Python and the operation of the schemas that they are.
_OPERATORS = {
    **{f"__{prefix}{name}__": name for name in ("add", "sub", "mul", "pow") for prefix in ("", "r", "i")},
    **{f"__{name}__": name for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"__{prefix}truediv__": "div" for prefix in ("", "r", "i")},
    **{f"__{prefix}{name}__": f"bitwise_{name}" for name in ("and", "or", "xor") for prefix in ("", "r", "i")},
    "__neg__": "neg",
    "__abs__": "abs",
    "__invert__": "bitwise_not",
}

_GROUPS = {
    GIVEN: "zeros ones empty full rand randn randint Tensor.new_zeros Tensor.new_ones Tensor.new_empty Tensor.new_full",
    LIKE: """zeros_like ones_like empty_like full_like rand_like randn_like randint_like clone cumsum cumprod flip
        roll softmax log_softmax nn.functional.softmax nn.functional.log_softmax nn.functional.dropout
        nn.functional.layer_norm nn.functional.batch_norm nn.functional.group_norm nn.functional.normalize
        linalg.inv linalg.cholesky""",
    LOSS: """nn.functional.mse_loss nn.functional.l1_loss nn.functional.smooth_l1_loss nn.functional.huber_loss
        nn.functional.binary_cross_entropy nn.functional.binary_cross_entropy_with_logits nn.functional.kl_div""",
    POOL: """nn.functional.max_pool1d nn.functional.max_pool2d nn.functional.max_pool3d nn.functional.avg_pool1d
        nn.functional.avg_pool2d nn.functional.avg_pool3d""",
    FFT: "fft.fft fft.ifft fft.rfft fft.irfft fft.hfft fft.ihfft",
}

_REVIEWED = {
    "matmul": "(*, n, m) @ (*, m, p) -> (*, n, p); a 1-d argument is a vector, and its dimension is not in the result",
    "mm": "(n, m) @ (m, p) -> (n, p)",
    "bmm": "(b, n, m) @ (b, m, p) -> (b, n, p)",
    "mv": "(n, m) @ (m,) -> (n,)",
    "dot": "(n,) · (n,) -> ()",
    "inner": "(*, n) and (+, n) -> (*, +)",
    "outer": "(n,) and (m,) -> (n, m)",
    "addmm": "input broadcast to (n, p), mat1 (n, m), mat2 (m, p) -> (n, p)",
    "cat": "tensors alike but for dim, where their sizes add up",
    "stack": "k tensors (*) -> (*) with a new dimension of k at dim",
    "where": BROADCAST,
    **dict.fromkeys(("max", "min"), "(*) -> (); with dim, that dimension is gone; with other, the arguments broadcast"),
    "einsum": "as the equation says: 'ij,jk->ik' is the matrix product",
    "topk": "(*, n) -> values and indices (*, k), along dim",
    "sort": "(*) -> values and indices (*), sorted along dim",
    "arange": "(ceil((end - start) / step),)",
    "linspace": "(steps,), both ends included",
    "eye": "(n, m), or (n, n)",
    "tensor": "the shape of the nested data",
    "diag": "(n,) -> (n, n), or (n, m) -> (min(n, m),)",
    "gather": "the shape of index",
    "index_select": "(*) -> (*) with len(index) at dim",
    "linalg.solve": "A (*, n, n), B (*, n, k) or (*, n) -> as B",
    "linalg.lstsq": "A (*, m, n), B (*, m, k) -> solution (*, n, k)",
    "linalg.det": "(*, n, n) -> (*)",
    "linalg.svd": "(*, m, n) -> U (*, m, m), S (*, min(m, n)), Vh (*, n, n); reduced with full_matrices=False",
    "linalg.eigh": "(*, n, n) -> eigenvalues (*, n), eigenvectors (*, n, n)",
    "linalg.eig": "(*, n, n) -> eigenvalues (*, n), eigenvectors (*, n, n), complex",
    "linalg.qr": "(*, m, n) -> Q (*, m, k), R (*, k, n) with k = min(m, n)",
    "nn.functional.linear": "input (*, in), weight (out, in), bias (out,) -> (*, out)",
    "nn.functional.conv1d": "input (N, C, L), weight (out, C / groups, k), bias (out,) -> (N, out, L')",
    "nn.functional.conv2d": "input (N, C, H, W), weight (out, C / groups, kh, kw), bias (out,) -> (N, out, H', W')",
    "nn.functional.conv3d": "input (N, C, D, H, W), weight (out, C / groups, kd, kh, kw) -> (N, out, D', H', W')",
    "nn.functional.embedding": "input (*), weight (rows, width) -> (*, width)",
    "nn.functional.one_hot": "(*) -> (*, num_classes)",
    "nn.functional.cross_entropy": "input (N, classes) or (N, classes, *), target (N) or (N, *) -> (), or as target",
    "nn.functional.nll_loss": "input (N, classes) or (N, classes, *), target (N) or (N, *) -> (), or as target",
    "nn.functional.scaled_dot_product_attention": "query (*, L, E), key (*, S, E), value (*, S, V) -> (*, L, V)",
    **{name: text for text, names in _GROUPS.items() for name in words(names)},
}


def text(candidate: Candidate) -> str:
    """A line on shapes, or nothing where no source says it."""
    name = candidate.name.removesuffix(".__get__")
    for known in (name, name.removeprefix("Tensor."), name.removeprefix("nn.functional.")):
        if known in _REVIEWED:
            return _REVIEWED[known]
    if name == "Tensor.__matmul__":
        return _REVIEWED["matmul"]
    prefix = "" if candidate.prefix in ("Tensor.", "nn.functional.") else candidate.prefix
    if candidate.prefix.startswith(("nn.init.", "nn.utils.", "Generator.", "autograd.")):
        return ""
    found = schemas.schemas(prefix, _OPERATORS.get(candidate.leaf, candidate.leaf))
    tags = set.union(set(), *(schemas.tags(schema) for schema in found))
    if tags & {"dynamic_output_shape"}:
        return DATA
    if any(schemas.is_view(schema) for schema in found):
        return VIEW
    if "pointwise" in tags:
        tensors = max(sum(str(a.type) == "Tensor" for a in schema.arguments) for schema in found)
        if tensors == 1:
            return EACH
        is_operator = candidate.leaf.startswith("__")
        return (
            IN_PLACE
            if candidate.leaf.startswith("__i") or (candidate.leaf[-1] == "_" and not is_operator)
            else BROADCAST
        )
    return REDUCTION if "reduction" in tags else ""
