"""Reviewed: what is let in although torch does not list it as overridable.

Factories and the session's own state have no tensor argument, so `torch.overrides` leaves them out.
"""

from typing import Any

from operations.lists import words

FACTORIES = words("""
tensor as_tensor asarray from_numpy scalar_tensor complex polar
zeros ones empty full rand randn randint randperm normal arange range linspace logspace eye
empty_strided empty_permuted sparse_coo_tensor
zeros_like ones_like empty_like full_like rand_like randn_like randint_like
tril_indices triu_indices vander
bartlett_window blackman_window hamming_window hann_window kaiser_window
fft.fftfreq fft.rfftfreq
Tensor.new_tensor Tensor.new_zeros Tensor.new_ones Tensor.new_empty Tensor.new_full Tensor.new_empty_strided
""")

FUNCTIONS = words("""
as_strided fill
nn.functional.sigmoid nn.functional.tanh nn.functional.hardsigmoid nn.functional.hardswish
nn.functional.upsample nn.functional.upsample_bilinear nn.functional.upsample_nearest
Tensor.unflatten Tensor.stride Tensor.__delitem__
broadcast_shapes
autograd.grad autograd.backward
sparse.mm sparse.addmm sparse.sum sparse.softmax sparse.log_softmax
masked.amax masked.amin masked.argmax masked.argmin masked.cumprod masked.cumsum
masked.log_softmax masked.logaddexp masked.logsumexp masked.mean masked.median masked.norm
masked.normalize masked.prod masked.softmax masked.softmin masked.std masked.sum
masked.var
nn.init.uniform_ nn.init.normal_ nn.init.trunc_normal_ nn.init.constant_ nn.init.ones_ nn.init.zeros_ nn.init.eye_
nn.init.dirac_ nn.init.xavier_uniform_ nn.init.xavier_normal_ nn.init.kaiming_uniform_ nn.init.kaiming_normal_
nn.init.orthogonal_ nn.init.sparse_ nn.init.calculate_gain
nn.utils.clip_grad_norm_ nn.utils.clip_grad_value_ nn.utils.get_total_norm nn.utils.clip_grads_with_norm_
nn.utils.parameters_to_vector nn.utils.vector_to_parameters nn.utils.rnn.pad_sequence
""")

PROMOTION = words("result_type can_cast promote_types")

SESSION = words("""
manual_seed seed initial_seed get_rng_state set_rng_state
set_default_dtype get_default_dtype set_printoptions
Generator Generator.manual_seed Generator.seed Generator.initial_seed Generator.get_state Generator.set_state
Generator.clone_state Generator.get_offset Generator.set_offset Generator.device.__get__
""")

SETTERS = words("""
Tensor.grad.__set__ Tensor.data.__set__ Tensor.requires_grad.__set__ Tensor.real.__set__ Tensor.imag.__set__
Tensor.grad_dtype.__set__
""")

# Read-only looks at a tensor that torch spells with an underscore and that people use all the same.
PRIVATE_BUT_KNOWN = words("Tensor._version.__get__ Tensor._is_view Tensor._indices Tensor._values Tensor._nnz")

EXTRAS = [*FACTORIES, *FUNCTIONS, *PROMOTION, *SESSION, *SETTERS, *PRIVATE_BUT_KNOWN]

# Our own operations, which are no path of torch.
BUILTIN: dict[str, dict[str, Any]] = {
    "tc.read": {"returns": "wait"},
    "tc.numpy": {"returns": "wait"},
    "tc.describe": {"returns": "wait"},
    # Which tensors share memory.
    "tc.storages": {"returns": "wait"},
    # Tensors for another session: of another engine, or of this one.
    "tc.lay_out": {"returns": "wait"},
    "tc.hand_over": {"returns": "wait"},
    "tc.take_over": {"returns": "wait"},
    "tc.drop_uploads": {"returns": "none"},
    "tc.lend": {"returns": "wait"},
    "tc.borrow": {"returns": "wait"},
    "tc.grant": {"returns": "wait"},
    "tc.granted": {"returns": "tensor"},
    "tc.revoke": {"returns": "wait"},
    # Names of tensors, which a session keeps.
    "tc.name": {"returns": "none"},
    "tc.name_of": {"returns": "wait"},
    "tc.names": {"returns": "wait"},
    "tc.named": {"returns": "tensor"},
    "tc.same": {"returns": "tensor"},
    # Where the time of a session goes, and the engine's clock.
    "tc.profile_begin": {"returns": "wait"},
    "tc.profile_clock": {"returns": "wait"},
    "tc.profile_end": {"returns": "tensor"},
    # torch.Tensor, FloatTensor and their kin as functions.
    "tc.constructed": {"returns": "tensor"},
    "tc.program": {"returns": "object"},
    "tc.run": {"returns": "wait"},
    # The same, of a program whose calls change something: a failure must reach the caller though nobody reads a result.
    "tc.run_with_effects": {"returns": "wait", "writes": ["program"]},
    "tc.network": {"returns": "object"},
    "tc.forward": {"returns": "tensor"},
    "tc.model_forward": {"returns": "tensor"},
    # An optimiser changes parameters that it refers to, which are not among the arguments of the call.
    "tc.optimizer": {"returns": "object"},
    "tc.optimizer_describe": {"returns": "wait"},
    "tc.optimizer_step": {"returns": "none", "writes": ["optimizer"]},
    "tc.optimizer_zero_grad": {"returns": "none", "writes": ["optimizer"]},
    "tc.optimizer_add_group": {"returns": "none", "writes": ["optimizer"]},
    "tc.optimizer_state": {"returns": "wait"},
    "tc.optimizer_load_state": {"returns": "none", "writes": ["optimizer"]},
    # Draws until all numbers fit: a loop that belongs on the server.
    "tc.trunc_normal_": {"returns": "self", "writes": ["tensor"], "random": True},
    # torch keeps them to its own distributions, and lists neither.
    "tc.standard_gamma": {"returns": "tensor", "random": True},
    "tc.sample_dirichlet": {"returns": "tensor", "random": True},
    # Of torch.cuda: the generator that draws a GPU's numbers, and to wait until a GPU has done what it was given.
    "tc.Generator.of_gpu": {"returns": "object"},
    "tc.gpu_synchronize": {"returns": "wait"},
    # What of a graph of autograd is a caller's own code: what comes is known where it is issued, and counted there.
    "tc.function": {"returns": "wait", "writes": ["outputs"]},
    "tc.hook": {"returns": "none", "state": True},
    "tc.unhook": {"returns": "none", "state": True},
    "tc.gone": {"returns": "wait"},
    "tc.pass_begin": {"returns": "wait", "state": True},
    "tc.pass_resume": {"returns": "wait", "state": True},
    "tc.pass_abort": {"returns": "none", "state": True},
    "tc.identity": {"returns": "wait"},
    "tc.node": {"returns": "wait"},
    "tc.edge": {"returns": "wait"},
    "tc.saved": {"returns": "wait"},
    "tc.differentiated_once": {"returns": "wait"},
}
