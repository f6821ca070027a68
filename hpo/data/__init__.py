"""Datasets as arrays in memory: found, downloaded, checked, normalized, split."""
