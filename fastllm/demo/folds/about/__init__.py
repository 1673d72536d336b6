"""What the words mean, what runs here, how to use it elsewhere, and where it comes from."""
