"""What the canary and the shadow tell, and how sure that is: statistics without a socket, a database or a clock."""
