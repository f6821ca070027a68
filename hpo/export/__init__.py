"""Stored studies for other programs: tables, trackers, and the winner as ONNX and torch.export."""
