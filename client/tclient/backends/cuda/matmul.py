"""torch.backends.cuda.matmul: how exact products are on a GPU. What is set here is noted; the server keeps its own."""

from tclient._settings import watch

allow_tf32 = False
allow_fp16_reduced_precision_reduction = True
allow_bf16_reduced_precision_reduction = True

watch(
    __name__,
    {
        "allow_tf32": False,
        "allow_fp16_reduced_precision_reduction": True,
        "allow_bf16_reduced_precision_reduction": True,
    },
)
