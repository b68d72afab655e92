"""What people type and read: command lines, paths, their own Python files, and the console."""
