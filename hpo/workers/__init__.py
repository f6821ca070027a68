"""Processes that train, and the messages that the runner exchanges with them."""
