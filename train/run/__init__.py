"""What runs on the host: the loop of a run, its files, and its way back after a stop, a crash or a NaN."""
