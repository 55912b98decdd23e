"""The gRPC face of the server: requests in, statuses out. Knows gRPC and sessions; does not know torch."""
