"""The training loop, its data and its protocols. Prints nothing; only the choice of a GPU kernel writes files."""
