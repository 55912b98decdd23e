"""Helpers for gradients and parameters, under the names of torch.nn.utils."""

from tclient.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_, get_total_norm
from tclient.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]
