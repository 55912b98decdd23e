"""The folder where `einops.layers` finds a module for tclient, beside those for other frameworks."""
