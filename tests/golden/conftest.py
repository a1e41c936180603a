"""Files that pytest must not collect."""

collect_ignore = ["make_neurobench.py", "make_spikingjelly.py"]  # their packages are installed in .bench-venv only
