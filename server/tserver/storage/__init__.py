"""What the server has on its disk: the data directory, and what is kept in it whole or not at all.

Every method blocks on the disk, and is for threads that may. Knows neither torch nor gRPC, nor what bytes mean.
"""
