"""What runs on the device: pure functions of a `Recipe` and arrays, and how they are compiled."""
