"""Episodes written down, and played again to check them."""
