"""Programs with functions of their own and with hooks, as people write them for torch."""

from __future__ import annotations

from typing import Any

from tests.semantics.harness import Watch


def relu(m: Any, t: Watch) -> None:
    class MyReLU(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, grad_output: Any) -> Any:
            (x,) = ctx.saved_tensors
            t.show(ctx.needs_input_grad, type(ctx).__name__, m.is_grad_enabled(), grad_output)
            grad_input = grad_output.clone()
            grad_input[x < 0] = 0
            return grad_input

    x = m.tensor([[1.0, -2.0], [3.0, -0.5]], requires_grad=True)
    y = MyReLU.apply(x)
    t.show(y, y.requires_grad, y.is_leaf, y.grad_fn.name())
    (y * x).sum().backward(retain_graph=True)
    t.show(x.grad)
    y.sum().backward()
    t.show(x.grad, m.autograd.grad(MyReLU.apply(x).exp().sum(), x))
    with m.no_grad():
        t.show(MyReLU.apply(x))
    t.show(MyReLU.apply(x.detach()))
    t.tries(lambda: y.sum().backward(), lambda: m.autograd.grad(y.sum(), x))


def straight_through(m: Any, t: Watch) -> None:
    class Round(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, scale: Any, name: Any = "round") -> Any:
            ctx.scale, ctx.name = scale, name
            return m.round(x * scale) / scale

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            t.show(ctx.scale, ctx.name, ctx.needs_input_grad)
            return g * ctx.scale, None, None

    x = m.tensor([0.3, 1.7, -2.2], requires_grad=True)
    (Round.apply(x, 2, "half") * m.arange(3.0)).sum().backward()
    t.show(x.grad)
    t.tries(lambda: Round.apply(x, 2).sum().backward())
    t.tries(lambda: Round.apply(x, scale=2))


def exponential_twice(m: Any, t: Watch) -> None:
    class Exp(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (y,) = ctx.saved_tensors
            t.show(m.is_grad_enabled(), y.requires_grad)
            return g * y

    x = m.tensor([0.5, 1.0], requires_grad=True)
    (first,) = m.autograd.grad(Exp.apply(Exp.apply(x)).sum(), x, create_graph=True)
    t.show(first)
    (second,) = m.autograd.grad(first.sum(), x, create_graph=True)
    t.show(second)
    second.sum().backward()
    t.show(x.grad)
    y = Exp.apply(x)
    with m.no_grad():
        y.mul_(2)
    t.tries(lambda: y.sum().backward())


def context_apart(m: Any, t: Watch) -> None:
    class Power(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(x: Any, n: int = 2) -> Any:
            return x**n, x + n

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            x, n = inputs
            t.show(len(output))
            ctx.n = n
            ctx.save_for_backward(x)

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * ctx.n * x ** (ctx.n - 1) + h, None

    x = m.tensor([1.0, 2.0], requires_grad=True)
    a, b = Power.apply(x, 3)
    (a.sum() + b.sum()).backward()
    t.show(x.grad, a, b)
    x.grad = None
    Power.apply(x)[1].sum().backward()
    t.show(x.grad)


def several_outputs(m: Any, t: Watch) -> None:
    def make(materialize: bool) -> Any:
        class Split(m.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, x: Any, y: Any) -> Any:
                ctx.set_materialize_grads(materialize)
                index = x.argmax()
                ctx.mark_non_differentiable(index)
                return x * 2, y * 3, index, 5, None

            @staticmethod
            def backward(ctx: Any, a: Any, b: Any, *rest: Any) -> Any:
                t.show(a, b, *rest)
                return None if a is None else a * 2, None if b is None else b * 3

        return Split

    for materialize in (True, False):
        x = m.tensor([1.0, 2.0], requires_grad=True)
        y = m.tensor([3.0], requires_grad=True)
        first, second, index, five, none = make(materialize).apply(x, y)
        t.show(first, second, index, five, none, index.requires_grad)
        first.sum().backward()
        t.show(x.grad, y.grad)
        t.show(m.autograd.grad(make(materialize).apply(x, y.detach())[0].sum(), x))
        t.tries(lambda i=index: i.sum().backward())


def in_place(m: Any, t: Watch) -> None:
    class Double(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    class Same(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, weight: float) -> Any:
            ctx.weight = weight
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return -ctx.weight * g, None

    w = m.ones(3, requires_grad=True)
    x = w * 3
    y = Double.apply(x)
    t.show(y is x, x, y)
    y.sum().backward()
    t.show(w.grad)
    t.tries(lambda: Double.apply(w).sum())
    z = Same.apply(w, 0.5)
    t.show(z is w, z)
    z.sum().backward()
    t.show(w.grad, w)
    t.tries(lambda: Same.apply(w, 0.5).add_(1))


def reversal(m: Any, t: Watch) -> None:
    class GradReverse(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, alpha: float) -> Any:
            ctx.alpha = alpha
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, grad_output: Any) -> Any:
            return grad_output.neg() * ctx.alpha, None

    m.manual_seed(0)
    features, domain, label = m.nn.Linear(4, 3), m.nn.Linear(3, 2), m.nn.Linear(3, 2)
    parameters = [*features.parameters(), *domain.parameters(), *label.parameters()]
    optimizer = m.optim.SGD(parameters, lr=0.1)
    x = m.rand(6, 4)
    target = m.tensor([0, 1, 0, 1, 1, 0])
    for step in range(3):
        h = m.relu(features(x))
        loss = m.nn.functional.cross_entropy(label(h), target)
        loss = loss + m.nn.functional.cross_entropy(domain(GradReverse.apply(h, 0.1 * step)), 1 - target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        t.show(loss.item())
    t.show(*parameters)


def quantizer(m: Any, t: Watch) -> None:
    class VectorQuantize(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, inputs: Any, codebook: Any) -> Any:
            distances = m.addmm(
                (codebook**2).sum(1) + (inputs**2).sum(1, keepdim=True), inputs, codebook.t(), alpha=-2.0, beta=1.0
            )
            indices = distances.argmin(1)
            ctx.save_for_backward(indices, codebook)
            ctx.mark_non_differentiable(indices)
            return m.index_select(codebook, 0, indices), indices

        @staticmethod
        def backward(ctx: Any, grad_output: Any, grad_indices: Any) -> Any:
            grad_inputs = grad_codebook = None
            if ctx.needs_input_grad[0]:
                grad_inputs = grad_output.clone()
            if ctx.needs_input_grad[1]:
                indices, codebook = ctx.saved_tensors
                grad_codebook = m.zeros_like(codebook)
                grad_codebook.index_add_(0, indices, grad_output.contiguous())
            return grad_inputs, grad_codebook

    m.manual_seed(1)
    inputs, codebook = m.rand(5, 3, requires_grad=True), m.rand(4, 3, requires_grad=True)
    codes, indices = VectorQuantize.apply(inputs, codebook)
    t.show(codes, indices)
    ((codes - inputs) ** 2).sum().backward()
    t.show(inputs.grad, codebook.grad)
    VectorQuantize.apply(inputs.detach(), codebook)[0].sum().backward()
    t.show(codebook.grad)


def wrong_gradients(m: Any, t: Watch) -> None:
    def made(answer: Any) -> Any:
        class Wrong(m.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, x: Any, k: Any) -> Any:
                return x * 2

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return answer(g)

        return lambda: Wrong.apply(m.ones(3, requires_grad=True), 2).sum().backward()

    def fails(error: Exception) -> Any:
        raise error

    t.tries(
        made(lambda g: g),
        made(lambda g: (g, None, g)),
        made(lambda g: (g, None, None)),
        made(lambda g: (g[:2], None)),
        made(lambda g: (g, g)),
        made(lambda g: (1, None)),
        made(lambda g: ("a", None)),
        made(lambda g: [g, None]),
        made(lambda g: None),
        made(lambda g: (None, None)),
        made(lambda g: (g.double(), None)),
        made(lambda g: (g.expand(2, 3), None)),
        made(lambda g: fails(KeyError("mine"))),
        made(lambda g: fails(ZeroDivisionError("also mine"))),
        made(lambda g: (g @ m.ones(2, 2), None)),
    )

    class Missing(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

    class Empty(m.autograd.Function):  # type: ignore[misc]
        pass

    x = m.ones(3, requires_grad=True)
    t.tries(lambda: Missing.apply(x).sum().backward(), lambda: Empty.apply(x), lambda: Empty()(x))
    t.tries(lambda: Missing.apply([1, 2]), lambda: Missing.apply(3))


def once(m: Any, t: Watch) -> None:
    class Cube(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @m.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            t.show(m.is_grad_enabled())
            return 3 * x**2 * g

    x = m.tensor([2.0], requires_grad=True)
    Cube.apply(x).backward()
    t.show(x.grad)
    (g,) = m.autograd.grad(Cube.apply(x), x, create_graph=True)
    t.show(g.requires_grad, g.detach())
    t.tries(g.backward)


def nested(m: Any, t: Watch) -> None:
    class Inner(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[0].cos()

    class Outer(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            with m.enable_grad():
                given = x.detach().requires_grad_()
                result = Inner.apply(given) * given
            ctx.save_for_backward(given, result)
            return result.detach()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            given, result = ctx.saved_tensors
            with m.enable_grad():
                (found,) = m.autograd.grad(result, given, g)
            return found

    x = m.tensor([0.5, 1.0], requires_grad=True)
    Outer.apply(Outer.apply(x)).sum().backward()
    t.show(x.grad)


def tensor_hooks(m: Any, t: Watch) -> None:
    x = m.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.retain_grad()
    handles = [
        y.register_hook(lambda g: t.show("first", g)),
        y.register_hook(lambda g: g * 2),
        y.register_hook(lambda g: t.show("then", g)),
        x.register_hook(lambda g: g + 1),
    ]
    (y * y).sum().backward(retain_graph=True)
    t.show(x.grad, y.grad)
    handles[1].remove()
    handles[1].remove()
    x.grad = None
    (y * y).sum().backward(retain_graph=True)
    t.show(x.grad, m.autograd.grad(y.sum(), [x, y]))
    with x.register_hook(lambda g: g * 100):
        t.show(m.autograd.grad((x * 2).sum(), x))
    t.show(m.autograd.grad((x * 2).sum(), x))

    def once(g: Any) -> Any:
        handle.remove()
        return g * 10

    handle = x.register_hook(once)
    t.show(m.autograd.grad((x * 2).sum(), x), m.autograd.grad((x * 2).sum(), x))

    def grows(g: Any) -> Any:
        return g[:1]

    def fails(g: Any) -> Any:
        raise LookupError("mine")

    for hook in (grows, fails, lambda g: 3, lambda g: g.double()):
        z = x * 2
        z.register_hook(hook)
        t.tries(lambda z=z: z.sum().backward())
    t.tries(lambda: m.ones(2).register_hook(grows))


def accumulation_hooks(m: Any, t: Watch) -> None:
    m.manual_seed(0)
    net = m.nn.Sequential(m.nn.Linear(3, 2), m.nn.Tanh(), m.nn.Linear(2, 1))
    optimizers = {p: m.optim.SGD([p], lr=0.1) for p in net.parameters()}

    def step(parameter: Any) -> None:
        t.show("step", tuple(parameter.shape), parameter.grad)
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    handles = [p.register_post_accumulate_grad_hook(step) for p in net.parameters()]
    x = m.rand(4, 3)
    for _ in range(2):
        net(x).square().mean().backward()
        t.show(*net.parameters(), [p.grad for p in net.parameters()])
    for handle in handles:
        handle.remove()
    net(x).square().mean().backward()
    t.show([p.grad for p in net.parameters()])
    w = m.ones(2, requires_grad=True)
    w.register_post_accumulate_grad_hook(lambda p: t.show(p.grad, p is w))
    (w * w + w).sum().backward()
    t.show(m.autograd.grad((w * 2).sum(), w))
    t.tries(
        lambda: (w * 2).register_post_accumulate_grad_hook(step),
        lambda: m.ones(2).register_post_accumulate_grad_hook(step),
    )


def nodes(m: Any, t: Watch) -> None:
    x, w = m.ones(2, 2, requires_grad=True), m.ones(2, requires_grad=True)
    y = (x @ w).exp().sum()
    seen = []

    def walk(node: Any, depth: int) -> None:
        if node is None:
            return
        seen.append((depth, node.name(), type(node).__name__, [index for _, index in node.next_functions]))
        for inner, _ in node.next_functions:
            walk(inner, depth + 1)

    walk(y.grad_fn, 0)
    t.show(seen, x.grad_fn, isinstance(y.grad_fn, m.autograd.graph.Node), y.grad_fn == y.grad_fn)
    t.show(y.grad_fn in {y.grad_fn}, str(y.grad_fn).split(" at ")[0])
    leaf = (x * 2).grad_fn.next_functions[0][0]
    t.show(leaf.variable is not None and leaf.variable.shape, m.autograd.graph.get_gradient_edge(x).node == leaf)
    node = y.grad_fn.next_functions[0][0]
    handle = node.register_hook(lambda before, behind: t.show("behind", before, behind))
    node.register_prehook(lambda behind: (behind[0] * 2,))
    m.autograd.grad(y, w, retain_graph=True)
    handle.remove()
    node.register_hook(lambda before, behind: (before[0] * 0,))
    t.show(m.autograd.grad(y, w))
    t.refuses(lambda: node.nothing)


def module_hooks(m: Any, t: Watch) -> None:
    m.manual_seed(0)
    net = m.nn.Sequential(m.nn.Linear(3, 4), m.nn.ReLU(), m.nn.Linear(4, 2))
    handles = [layer.register_full_backward_hook(lambda _, a, b: t.show(a, b)) for layer in net]
    handles.append(net[0].register_full_backward_pre_hook(lambda _, b: t.show("before", b)))
    x = m.rand(2, 3)
    net(x).sum().backward()
    x.requires_grad_()
    net(x).sum().backward()
    t.show(x.grad)
    for handle in handles:
        handle.remove()
    for register, hook in (
        (net[1].register_full_backward_hook, lambda _, a, b: (a[0] * 0,)),
        (net[1].register_full_backward_pre_hook, lambda _, b: (b[0] * 2,)),
        (net[1].register_full_backward_hook, lambda _, a, b: a + a),
        (net[1].register_full_backward_pre_hook, lambda _, b: b + b),
    ):
        x.grad = None
        with register(hook):
            t.tries(lambda: net(x).sum().backward())
        t.show(x.grad)
    t.tries(lambda: net[1].register_backward_hook(print))

    class Several(m.nn.Module):  # type: ignore[misc]
        def forward(self, a: Any, b: Any, scale: int = 2) -> Any:
            return a * b, a + scale, "text"

    several = Several()
    several.register_full_backward_hook(lambda _, a, b: t.show(type(_).__name__, a, b))
    w = m.ones(2, requires_grad=True)
    several(w, m.ones(2), scale=3)[0].sum().backward()
    several(w, 4.0)[1].sum().backward()
    with m.no_grad():
        t.show(several(w, 5.0)[0])
    old = m.nn.Linear(2, 1)
    old.register_backward_hook(lambda _, a, b: t.show("old", b))
    old(w).sum().backward()


def grad_cam(m: Any, t: Watch) -> None:
    class GradCam:
        def __init__(self, model: Any, layer: Any) -> None:
            self.model = model
            self.kept: dict[str, Any] = {}
            layer.register_forward_hook(lambda _, inputs, output: self.kept.update(activations=output.detach()))
            layer.register_full_backward_hook(lambda _, a, b: self.kept.update(gradients=b[0].detach()))

        def __call__(self, x: Any, index: int) -> Any:
            self.model.zero_grad()
            self.model(x)[0, index].backward()
            weights = self.kept["gradients"].mean(dim=(2, 3), keepdim=True)
            cam = m.relu((weights * self.kept["activations"]).sum(dim=1, keepdim=True))
            return m.nn.functional.interpolate(cam, size=x.shape[2:], mode="bilinear", align_corners=False)

    m.manual_seed(3)
    model = m.nn.Sequential(
        m.nn.Conv2d(1, 3, 3), m.nn.ReLU(), m.nn.Conv2d(3, 2, 3), m.nn.ReLU(), m.nn.Flatten(), m.nn.Linear(32, 3)
    )
    model.eval()
    t.show(GradCam(model, model[2])(m.rand(1, 1, 8, 8), 1))


def checked(m: Any, t: Watch) -> None:
    gradcheck, gradgradcheck = m.autograd.gradcheck, m.autograd.gradgradcheck

    class Cube(m.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, k: float = 1.0) -> Any:
            ctx.save_for_backward(x)
            ctx.k = k
            return k * x**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 3 * ctx.k * x**2 * g, None

    class Wrong(Cube):
        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 0 + 2, None

    x = m.tensor([0.5, -1.0], dtype=m.double, requires_grad=True)
    w = m.tensor([[1.0, 2.0]], dtype=m.double, requires_grad=True)
    t.show(
        gradcheck(Cube.apply, (x, 2.0)),
        gradcheck(lambda a, b: (b @ a, a.exp(), a.detach()), (x, w)),
        gradcheck(lambda a: a.detach() * 0, (x,)),
        gradgradcheck(Cube.apply, (x,)),
        gradcheck(Wrong.apply, (x,), raise_exception=False),
        gradcheck(lambda a: a * 2, x, eps=1e-4, atol=1e-4),
        gradcheck(m.nn.Linear(2, 3).double(), (x,)),
    )
    t.tries(
        lambda: gradcheck(Wrong.apply, (x,)),
        lambda: gradcheck(lambda a: a.detach() * 2, (x,)),
        lambda: gradcheck(lambda a: a * 2, (x.detach(),)),
        lambda: gradcheck(lambda a: a * 2, (m.ones(1, dtype=m.double).expand(3).requires_grad_(),)),
    )
    t.warns(lambda: gradcheck(lambda a: a * 2, m.ones(2, requires_grad=True), eps=1e-2, atol=1e-2))


def lower_precision(m: Any, t: Watch) -> None:
    def made(cast: Any) -> Any:
        class Product(m.autograd.Function):  # type: ignore[misc]
            @staticmethod
            @m.amp.custom_fwd(device_type="cpu", cast_inputs=cast)  # type: ignore[untyped-decorator]
            def forward(ctx: Any, a: Any, b: Any) -> Any:
                ctx.save_for_backward(a, b)
                t.show(a.dtype, (a @ b).dtype, m.is_autocast_enabled("cpu"))
                return a @ b

            @staticmethod
            @m.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
            def backward(ctx: Any, g: Any) -> Any:
                a, b = ctx.saved_tensors
                t.show(m.is_autocast_enabled("cpu"), (g.float() @ b.float().t()).dtype)
                return g @ b.t(), a.t() @ g

        return Product

    for cast in (None, m.float32, m.bfloat16):
        a, b = m.ones(2, 2, requires_grad=True), m.eye(2, requires_grad=True)
        with m.autocast("cpu", dtype=m.bfloat16):
            y = made(cast).apply(a, b)
        t.show(y)
        y.sum().backward()
        t.show(a.grad, b.grad)
        made(cast).apply(a, b).sum().backward()
        t.show(a.grad)


PROGRAMS = [
    lower_precision,
    checked,
    relu,
    straight_through,
    exponential_twice,
    context_apart,
    several_outputs,
    in_place,
    reversal,
    quantizer,
    wrong_gradients,
    once,
    nested,
    tensor_hooks,
    accumulation_hooks,
    nodes,
    module_hooks,
    grad_cam,
]
