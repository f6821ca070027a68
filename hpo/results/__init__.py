"""What is stored of a study, read once: trials, curves, grids, searches and their finalists."""
