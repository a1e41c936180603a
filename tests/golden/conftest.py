"""What pytest is to leave alone here."""

collect_ignore = ["make_spikingjelly.py"]  # SpikingJelly lives in .bench-venv only
