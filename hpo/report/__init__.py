"""Reports of stored studies as HTML, Markdown, SVG and CSV."""
