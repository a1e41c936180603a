"""What a trained network does on data: accuracy, latency, operations, summary."""
