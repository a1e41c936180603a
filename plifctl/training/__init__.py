"""The training loop, its data and its protocols. Prints nothing, knows no file name."""
