"""From raw recordings to frames: storage, formats, data sets, framing. Uses numpy, never torch."""
