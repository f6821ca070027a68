"""What pages of reports are made of: blocks, tables and sentences."""
