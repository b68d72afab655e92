"""Programs compiled ahead of time for accelerators that are not at hand, and what the compilers made of them."""
