"""The array API standard on tensors of the server: what libraries use that work with arrays of any kind.

    import tclient
    from tclient import array_api as xp

    x = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    xp.mean(x, axis=0, keepdims=True)

Libraries find it by `Tensor.__array_namespace__()`. The arrays are tensors: operators and methods are torch's. The
functions here are the standard's, where torch has other names of arguments, promotion or special values. What they do
says https://data-apis.org/array-api/2024.12; of `uint16`, `uint32` and `uint64` torch has few operations.
"""

from __future__ import annotations

from tclient import bool as bool
from tclient import complex64 as complex64
from tclient import complex128 as complex128
from tclient import e as e
from tclient import float32 as float32
from tclient import float64 as float64
from tclient import inf as inf
from tclient import int8 as int8
from tclient import int16 as int16
from tclient import int32 as int32
from tclient import int64 as int64
from tclient import nan as nan
from tclient import newaxis as newaxis
from tclient import pi as pi
from tclient import uint8 as uint8
from tclient import uint16 as uint16
from tclient import uint32 as uint32
from tclient import uint64 as uint64
from tclient.array_api import fft as fft
from tclient.array_api import linalg as linalg
from tclient.array_api._creation import arange as arange
from tclient.array_api._creation import asarray as asarray
from tclient.array_api._creation import empty as empty
from tclient.array_api._creation import empty_like as empty_like
from tclient.array_api._creation import eye as eye
from tclient.array_api._creation import from_dlpack as from_dlpack
from tclient.array_api._creation import full as full
from tclient.array_api._creation import full_like as full_like
from tclient.array_api._creation import linspace as linspace
from tclient.array_api._creation import meshgrid as meshgrid
from tclient.array_api._creation import ones as ones
from tclient.array_api._creation import ones_like as ones_like
from tclient.array_api._creation import tril as tril
from tclient.array_api._creation import triu as triu
from tclient.array_api._creation import zeros as zeros
from tclient.array_api._creation import zeros_like as zeros_like
from tclient.array_api._dtypes import can_cast as can_cast
from tclient.array_api._dtypes import finfo as finfo
from tclient.array_api._dtypes import iinfo as iinfo
from tclient.array_api._dtypes import isdtype as isdtype
from tclient.array_api._dtypes import result_type as result_type
from tclient.array_api._elementwise import abs as abs
from tclient.array_api._elementwise import acos as acos
from tclient.array_api._elementwise import acosh as acosh
from tclient.array_api._elementwise import add as add
from tclient.array_api._elementwise import asin as asin
from tclient.array_api._elementwise import asinh as asinh
from tclient.array_api._elementwise import atan as atan
from tclient.array_api._elementwise import atan2 as atan2
from tclient.array_api._elementwise import atanh as atanh
from tclient.array_api._elementwise import bitwise_and as bitwise_and
from tclient.array_api._elementwise import bitwise_invert as bitwise_invert
from tclient.array_api._elementwise import bitwise_left_shift as bitwise_left_shift
from tclient.array_api._elementwise import bitwise_or as bitwise_or
from tclient.array_api._elementwise import bitwise_right_shift as bitwise_right_shift
from tclient.array_api._elementwise import bitwise_xor as bitwise_xor
from tclient.array_api._elementwise import ceil as ceil
from tclient.array_api._elementwise import clip as clip
from tclient.array_api._elementwise import conj as conj
from tclient.array_api._elementwise import copysign as copysign
from tclient.array_api._elementwise import cos as cos
from tclient.array_api._elementwise import cosh as cosh
from tclient.array_api._elementwise import divide as divide
from tclient.array_api._elementwise import equal as equal
from tclient.array_api._elementwise import exp as exp
from tclient.array_api._elementwise import expm1 as expm1
from tclient.array_api._elementwise import floor as floor
from tclient.array_api._elementwise import floor_divide as floor_divide
from tclient.array_api._elementwise import greater as greater
from tclient.array_api._elementwise import greater_equal as greater_equal
from tclient.array_api._elementwise import hypot as hypot
from tclient.array_api._elementwise import imag as imag
from tclient.array_api._elementwise import isfinite as isfinite
from tclient.array_api._elementwise import isinf as isinf
from tclient.array_api._elementwise import isnan as isnan
from tclient.array_api._elementwise import less as less
from tclient.array_api._elementwise import less_equal as less_equal
from tclient.array_api._elementwise import log as log
from tclient.array_api._elementwise import log1p as log1p
from tclient.array_api._elementwise import log2 as log2
from tclient.array_api._elementwise import log10 as log10
from tclient.array_api._elementwise import logaddexp as logaddexp
from tclient.array_api._elementwise import logical_and as logical_and
from tclient.array_api._elementwise import logical_not as logical_not
from tclient.array_api._elementwise import logical_or as logical_or
from tclient.array_api._elementwise import logical_xor as logical_xor
from tclient.array_api._elementwise import maximum as maximum
from tclient.array_api._elementwise import minimum as minimum
from tclient.array_api._elementwise import multiply as multiply
from tclient.array_api._elementwise import negative as negative
from tclient.array_api._elementwise import nextafter as nextafter
from tclient.array_api._elementwise import not_equal as not_equal
from tclient.array_api._elementwise import positive as positive
from tclient.array_api._elementwise import pow as pow
from tclient.array_api._elementwise import real as real
from tclient.array_api._elementwise import reciprocal as reciprocal
from tclient.array_api._elementwise import remainder as remainder
from tclient.array_api._elementwise import round as round
from tclient.array_api._elementwise import sign as sign
from tclient.array_api._elementwise import signbit as signbit
from tclient.array_api._elementwise import sin as sin
from tclient.array_api._elementwise import sinh as sinh
from tclient.array_api._elementwise import sqrt as sqrt
from tclient.array_api._elementwise import square as square
from tclient.array_api._elementwise import subtract as subtract
from tclient.array_api._elementwise import tan as tan
from tclient.array_api._elementwise import tanh as tanh
from tclient.array_api._elementwise import trunc as trunc
from tclient.array_api._info import __array_namespace_info__ as __array_namespace_info__
from tclient.array_api._manipulation import astype as astype
from tclient.array_api._manipulation import broadcast_arrays as broadcast_arrays
from tclient.array_api._manipulation import broadcast_shapes as broadcast_shapes
from tclient.array_api._manipulation import broadcast_to as broadcast_to
from tclient.array_api._manipulation import concat as concat
from tclient.array_api._manipulation import expand_dims as expand_dims
from tclient.array_api._manipulation import flip as flip
from tclient.array_api._manipulation import moveaxis as moveaxis
from tclient.array_api._manipulation import permute_dims as permute_dims
from tclient.array_api._manipulation import repeat as repeat
from tclient.array_api._manipulation import reshape as reshape
from tclient.array_api._manipulation import roll as roll
from tclient.array_api._manipulation import squeeze as squeeze
from tclient.array_api._manipulation import stack as stack
from tclient.array_api._manipulation import tile as tile
from tclient.array_api._manipulation import unstack as unstack
from tclient.array_api._reductions import all as all
from tclient.array_api._reductions import any as any
from tclient.array_api._reductions import argmax as argmax
from tclient.array_api._reductions import argmin as argmin
from tclient.array_api._reductions import count_nonzero as count_nonzero
from tclient.array_api._reductions import cumulative_prod as cumulative_prod
from tclient.array_api._reductions import cumulative_sum as cumulative_sum
from tclient.array_api._reductions import diff as diff
from tclient.array_api._reductions import max as max
from tclient.array_api._reductions import mean as mean
from tclient.array_api._reductions import min as min
from tclient.array_api._reductions import prod as prod
from tclient.array_api._reductions import std as std
from tclient.array_api._reductions import sum as sum
from tclient.array_api._reductions import var as var
from tclient.array_api._searching import argsort as argsort
from tclient.array_api._searching import isin as isin
from tclient.array_api._searching import nonzero as nonzero
from tclient.array_api._searching import searchsorted as searchsorted
from tclient.array_api._searching import sort as sort
from tclient.array_api._searching import take as take
from tclient.array_api._searching import take_along_axis as take_along_axis
from tclient.array_api._searching import unique_all as unique_all
from tclient.array_api._searching import unique_counts as unique_counts
from tclient.array_api._searching import unique_inverse as unique_inverse
from tclient.array_api._searching import unique_values as unique_values
from tclient.array_api._searching import where as where
from tclient.array_api.linalg import matmul as matmul
from tclient.array_api.linalg import matrix_transpose as matrix_transpose
from tclient.array_api.linalg import tensordot as tensordot
from tclient.array_api.linalg import vecdot as vecdot

__array_api_version__ = "2024.12"
# The later ones say more, and nothing else: `broadcast_shapes`, and several axes of `expand_dims`, are here.
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")
