"""What GPU is there, what GPU was asked for, and which targets run on it."""
