"""Sessions: who owns what, in which order it happens, once each, and for how long. No gRPC here, and no torch."""
