"""The training loop, its data and its protocols. Prints nothing and writes no files."""
