"""Spiking neurons, layers and networks. Torch only: no files, no registry."""
