"""What touches tensors of models: weights and forward passes.

    description   what a network is made of, checked, counted and printed
    files         the safetensors format
    model         a network with its weights on the device
    graphs        forward passes on CUDA, captured
    runner        one forward pass for many requests
    forwards      forward passes in their place among the calls of a session
    sources       what a new model is made of

Each knows only those above it. Names, queues and disks are the business of tserver.models.
"""
