"""Turn result tables into statistics, pictures and one HTML page."""
