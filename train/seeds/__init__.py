"""Several seeds of one config in one program."""
