"""What a principal may use, and what it uses: read from a file, kept in an account. Knows neither gRPC nor torch."""
