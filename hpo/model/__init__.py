"""Saved networks: the `best/` folder, its weights, images to classify, a snippet that loads it."""
