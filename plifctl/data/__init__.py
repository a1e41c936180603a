"""From raw recordings to frames: storage, formats, data sets, framing. Numpy only."""
