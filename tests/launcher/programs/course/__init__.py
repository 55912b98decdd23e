"""A course in a package."""
