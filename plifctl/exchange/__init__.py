"""File formats for networks, one module each."""
