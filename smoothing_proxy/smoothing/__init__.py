"""The smoothed classifier: plans that ask for draws, and the sampler that gets them."""
