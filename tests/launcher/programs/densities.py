"""Fits densities: a mixture to points, a flow of transforms, and an approximate posterior by its lower bound."""

import torch
import torch.distributions as dist
from torch import nn
from torch.distributions import constraints, kl_divergence, transform_to
from torch.distributions.kl import register_kl
from torch.distributions.normal import Normal
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.transformed_distribution import TransformedDistribution
from torch.distributions.transforms import AffineTransform, SigmoidTransform
from torch.distributions.utils import broadcast_all, lazy_property

torch.manual_seed(0)


class Shifted(dist.Distribution):
    arg_constraints = {"shift": constraints.real}  # noqa: RUF012

    def __init__(self, base, shift, validate_args=None):
        (self.shift,) = broadcast_all(shift)
        self.base = base
        super().__init__(base.batch_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        return constraints.greater_than(self.shift)

    @lazy_property
    def twice(self):
        return 2 * self.shift

    def log_prob(self, value):
        if self._validate_args:
            self._validate_sample(value)
        return self.base.log_prob(value - self.shift)


@register_kl(Shifted, Shifted)
def of_shifted(p, q):
    return kl_divergence(p.base, q.base) + (p.shift - q.shift).abs()


# A mixture, fitted by its likelihood.
points = torch.cat([torch.randn(60) * 0.5 - 2, torch.randn(40) + 3])
weights = nn.Parameter(torch.zeros(2))
means = nn.Parameter(torch.tensor([-1.0, 1.0]))
widths = nn.Parameter(torch.zeros(2))
optimizer = torch.optim.Adam([weights, means, widths], lr=0.1)
to_positive = transform_to(constraints.positive)
for step in range(40):
    mixture = dist.MixtureSameFamily(dist.Categorical(logits=weights), dist.Normal(means, to_positive(widths)))
    loss = -mixture.log_prob(points).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 13 == 0:
        print(f"mixture {step:2d} {loss.item():.3f}")
print(mixture.mixture_distribution.probs.detach().round(decimals=2), mixture)

# A flow from the unit interval to a line.
base = TransformedDistribution(Normal(torch.zeros(3), 1.0), [SigmoidTransform(), AffineTransform(1.0, 2.0)])
print(base, base.support, base.sample(), base.log_prob(torch.full((3,), 2.0)))
print(dist.biject_to(base.support.base_constraint if hasattr(base.support, "base_constraint") else constraints.simplex))

# The lower bound of a latent code.
encoder, decoder = nn.Linear(4, 4), nn.Linear(2, 4)
data = torch.rand(8, 4)
optimizer = torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.05)
for _ in range(3):
    place, log_scale = encoder(data).chunk(2, -1)
    posterior = dist.Independent(Normal(place, log_scale.exp()), 1)
    prior = dist.Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    code = posterior.rsample()
    likelihood = dist.ContinuousBernoulli(logits=decoder(code)).log_prob(data).sum(-1)
    bound = (likelihood - kl_divergence(posterior, prior)).mean()
    optimizer.zero_grad()
    (-bound).backward()
    optimizer.step()
    print(f"bound {bound.item():.4f}")

shifted = Shifted(dist.Gamma(2.0, 1.0), 0.5)
print(shifted.twice, shifted.log_prob(torch.tensor([1.0, 2.0])), kl_divergence(shifted, Shifted(shifted.base, 1.0)))
print(LogitRelaxedBernoulli(torch.tensor(0.5), torch.tensor([0.2, 0.7])).rsample())
for name in ("Cauchy", "Weibull", "VonMises", "StudentT", "LKJCholesky", "Kumaraswamy"):
    made = getattr(dist, name)(2, 1.5)
    print(made, made.sample())
for problem in (lambda: shifted.log_prob(torch.tensor(0.0)), lambda: dist.Cauchy(0.0, -1.0), lambda: shifted.mean):
    try:
        problem()
    except (ValueError, NotImplementedError) as error:
        print(type(error).__name__, error)
print([name for name in dir(dist) if name.startswith("Half")], sorted(dist.__all__)[-3:])
