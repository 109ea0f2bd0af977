"""What a network may be for: ready-made tasks, and what they measure by."""
