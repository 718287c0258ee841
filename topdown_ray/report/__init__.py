"""From tables to statistics, pictures and one page."""
