"""What operators type: one module for each noun. They parse, call, and print; nothing is decided here."""
