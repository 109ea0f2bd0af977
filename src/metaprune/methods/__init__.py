"""One folder per paper. A method decides which channels stay; it never changes a shape itself."""
