"""plifctl: learnable membrane time constants, from raw recordings to the paper's tables."""

__version__ = "0.1.0"
