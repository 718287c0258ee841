"""Write, verify and load result tables, on a disk or in a bucket. This room does not import torch."""
