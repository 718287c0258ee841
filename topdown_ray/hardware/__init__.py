"""Measure latency tables on your own devices."""
