"""Latency tables that are measured on your own devices."""
