"""What a loss probe is made of: the directions of a window, and calls of a loss that a user wrote."""
