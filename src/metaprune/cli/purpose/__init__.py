"""What a network is for: its task, how its data come to it, and how it is trained, from the words of a user."""
