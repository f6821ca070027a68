"""A run of a study: what is trained, in which order, and what is stored of it."""
