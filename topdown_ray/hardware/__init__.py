"""Latency tables of one's own devices."""
