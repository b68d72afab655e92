"""Several processes, mostly one a host, that train one run together: their start, their agreement, and a lost one."""
