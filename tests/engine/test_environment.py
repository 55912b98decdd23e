"""What the serving process finds in its environment."""

from __future__ import annotations

from tserver.supervisor import environment


def test_the_allocator_grows_its_segments() -> None:
    assert environment({"HOME": "/root"})["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert environment({"HOME": "/root"})["HOME"] == "/root"


def test_who_waits_for_a_message_looks_at_the_socket_itself() -> None:
    assert environment({})["GRPC_EXPERIMENTS"] == "-event_engine_client,-event_engine_listener"
    assert environment({"GRPC_EXPERIMENTS": ""})["GRPC_EXPERIMENTS"] == ""


def test_what_the_operator_has_set_is_left_alone() -> None:
    assert environment({"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"})["PYTORCH_ALLOC_CONF"].startswith("backend")
    old = environment({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"})
    assert "PYTORCH_ALLOC_CONF" not in old
    assert old["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:128"
