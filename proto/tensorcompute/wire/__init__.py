"""What client and server must write and read alike, and protobuf does not do. Knows neither gRPC nor torch."""
