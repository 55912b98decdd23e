"""Bulk bytes: arrays and files in chunks over gRPC, over the data endpoint, through shared memory, with progress."""
