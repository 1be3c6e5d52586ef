"""The endpoints, one module per client that they are made for."""
