"""Write scikit-learn's handwritten digits as an image folder: train/0 .. train/9 and val/0 .. val/9.

    python scripts/examples/digits_as_images.py data/digits

The data set has 1,797 digits of 8 x 8 grey levels. The script enlarges them to 64 x 64 pixels and uses 30 %
of each class for validation.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(out: Path, size: int = 64, seed: int = 0) -> None:
    """Write the image folder ``out``. The seed decides which digits are for validation."""
    digits = load_digits()
    for label in range(10):
        places = np.random.default_rng(seed + label).permutation(np.flatnonzero(digits.target == label))
        n_val = round(0.3 * len(places))
        for split, part in (("val", places[:n_val]), ("train", places[n_val:])):
            folder = out / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            for place in part:
                grey = Image.fromarray((digits.images[place] * (255 / 16)).round().astype(np.uint8))
                grey.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{place:04d}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()
    write_digits(arguments.out, arguments.size)
    print(arguments.out)
