"""Evaluation of networks: accuracy, latency, operations, summary."""
