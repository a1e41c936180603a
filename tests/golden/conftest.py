"""What pytest is to leave alone here."""

collect_ignore = ["make_neurobench.py", "make_spikingjelly.py"]  # their packages live in .bench-venv only
