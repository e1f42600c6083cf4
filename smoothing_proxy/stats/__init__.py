"""The statistics of the proof: pure functions of counts, every bound rounded to the safe side."""
