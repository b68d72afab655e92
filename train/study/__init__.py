"""Several runs compared: a plan of variants and seeds, run one by one, summed up in a table and figures."""
