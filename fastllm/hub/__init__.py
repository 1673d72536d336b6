"""What goes to the Hugging Face Hub: the page as a Space, checkpoints with their cards."""
