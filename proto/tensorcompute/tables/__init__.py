"""Tables of the contract that both sides read, a row for each member of an enum.

A row is all there is to add: `make proto` writes the enum of the .proto files from it. Knows neither gRPC nor torch.
"""
