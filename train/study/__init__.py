"""Several runs compared: a plan of variants, seeds and claims; their runs in parallel; gains, verdicts, a page."""
