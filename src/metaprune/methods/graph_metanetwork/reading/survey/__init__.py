"""What is told of an axis that means the same in every network, beside what `features` says of it."""
