"""What is true of users and items now, and what was true before each thing that they did."""
