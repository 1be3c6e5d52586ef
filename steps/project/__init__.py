"""What MLproject and the profiles declare."""
