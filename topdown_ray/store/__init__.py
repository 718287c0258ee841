"""Tables on disk or in a bucket: written in parts, verified, loaded. No torch here."""
