"""Reviewed: what torch lists as overridable and the table leaves out, each with its class of reason."""

from operations.lists import words

REASONS = {
    "client": "done by the client itself: it needs no server, or means the client's own memory",
    "callable": "takes a function of the caller, or hands one out: no caller's code runs on the server",
    "pickle": "pickling",
    "pointer": "raw pointers and foreign handles: DLPack, the CUDA array interface",
    "storage": "storage handles: memory without shape or type, outside a session's account",
    "shared memory": "shared or page-locked memory of the server's host",
    "file": "files of the server's host",
    "nested": "nested tensors: only rectangular ones are held",
    "stream": "CUDA streams belong to the server",
    "sparse": "compressed sparse and mkldnn tensors, which are not held, and what changes a sparse tensor in its place",
    "quantized": "quantized tensors and their packed weights: only plain element types are held",
    "symbolic": "symbolic shapes of the compiler, no tensors",
    "backend": "the inner half of another operation, on one vendor's library only",
    "deprecated": "removed: torch itself only raises an error that names the successor",
    "unchecked": "torch does not check its arguments: wrong ones reach foreign memory; the public function checks",
    "private": "private to torch: a leading underscore",
    "suspect": "new in this torch and not reviewed yet: the name sounds like one of the above",
}

LEFT_OUT: dict[str, str] = {}


def _leave_out(reason: str, names: str) -> None:
    assert reason in REASONS
    for name in names.split():
        LEFT_OUT[name] = reason


_leave_out(
    "client",
    """autocast Tensor.__array__ Tensor.__array_wrap__ Tensor.__deepcopy__ Tensor.module_load Tensor.register_hook
    Tensor.register_post_accumulate_grad_hook Tensor.data_ptr Tensor.const_data_ptr Tensor.storage
    Tensor.untyped_storage Tensor.share_memory_""",
)
_leave_out("client", "Tensor.__dlpack__ Tensor.__dlpack_device__")
_leave_out("callable", "Tensor.apply_ Tensor.map_ Tensor.map2_ Tensor.index")
_leave_out("pickle", "Tensor.__reduce_ex__ Tensor.__setstate__")
_leave_out(
    "pointer",
    "Tensor.__cuda_array_interface__.__get__",
)
_leave_out("storage", "Tensor.set_ Tensor.storage_type")
_leave_out("shared memory", "Tensor.pin_memory")
_leave_out("stream", "Tensor.record_stream")
_leave_out(
    "sparse",
    """hspmm smm sspaddmm native_norm Tensor.smm Tensor.sspaddmm Tensor.to_mkldnn
    Tensor.sparse_resize_ Tensor.sparse_resize_and_clear_ Tensor.resize_as_sparse_ resize_as_sparse_""",
)
_leave_out(
    "quantized",
    """choose_qparams_optimized fused_moving_avg_obs_fake_quant int_repr Tensor.int_repr
    fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight
    fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16
    fbgemm_pack_quantized_matrix
    quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm quantized_gru_cell
    quantized_lstm_cell quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d quantized_rnn_relu_cell
    quantized_rnn_tanh_cell
    q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point
    Tensor.q_per_channel_axis Tensor.q_per_channel_scales Tensor.q_per_channel_zero_points Tensor.q_scale
    Tensor.q_zero_point Tensor.qscheme""",
)
_leave_out("symbolic", "sym_float sym_ite sym_max sym_min sym_not sym_sqrt sym_sum sym_int")
_leave_out(
    "backend",
    """miopen_batch_norm miopen_convolution miopen_convolution_add_relu miopen_convolution_relu
    miopen_convolution_transpose miopen_depthwise_convolution miopen_rnn
    batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats
    batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats
    Tensor.ipu Tensor.xpu Tensor.mtia""",
)
_leave_out("unchecked", "native_batch_norm native_group_norm")

# Factories that torch lists elsewhere.
FACTORIES_LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(
        words("""sparse_csr_tensor sparse_csc_tensor sparse_bsr_tensor sparse_bsc_tensor
        sparse_compressed_tensor"""),
        "sparse",
    ),
    "empty_quantized": "quantized",
    "from_file": "file",
    "frombuffer": "pointer",
    "from_dlpack": "client",
    "to_dlpack": "pointer",
    "nested.nested_tensor": "nested",
    "Tensor.new": "client",
}

# A name with one of these in it is let in only by name: what torch adds later is not trusted by default.
SUSPECT_PARTS = (
    "ptr", "storage", "dlpack", "pickle", "file", "load", "save", "hook", "share", "interface", "subclass", "stream",
    "compile", "script", "jit", "thread", "fork", "eval", "exec", "import", "sparse", "mkldnn", "quantiz", "fbgemm",
    "miopen", "cudnn", "unsafe", "backend", "sym_",
)  # fmt: skip

# Reviewed and let in, although the name has such a part.
NOT_SUSPECT = frozenset(
    words("""unsafe_chunk unsafe_split unsafe_split_with_sizes
    Tensor.unsafe_chunk Tensor.unsafe_split Tensor.unsafe_split_with_sizes
    Tensor.is_sparse.__get__ Tensor.is_sparse_csr.__get__ Tensor.is_mkldnn.__get__ Tensor.is_quantized.__get__
    Tensor.sparse_dim Tensor.storage_offset Tensor.to_sparse Tensor.sparse_mask
    dequantize Tensor.dequantize fake_quantize_per_channel_affine
    fake_quantize_per_tensor_affine
    nn.init.sparse_ Tensor.is_shared""")
)


def reason_to_leave_out(name: str) -> str | None:
    """Why the table leaves a name out, or None for one that it has."""
    if name in LEFT_OUT:
        return LEFT_OUT[name]
    if name in NOT_SUSPECT:
        return None
    if any(part in name.lower() for part in SUSPECT_PARTS):
        return "suspect"
    return None
