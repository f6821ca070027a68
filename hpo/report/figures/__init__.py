"""Figures of the report: numbers in, SVG text out."""
