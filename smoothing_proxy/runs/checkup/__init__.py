"""What can be wrong before the first paid draw, one finding for each check."""
