"""Provide other searches for comparison."""
