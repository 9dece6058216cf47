"""A trained network with all that it needs to answer."""
