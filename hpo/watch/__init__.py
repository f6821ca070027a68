"""What a person watches: progress, terminal tables, the dashboard and its notes and pictures."""
