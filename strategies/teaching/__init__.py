"""Teaching: the student, or a group of peers, with what the clients answered on the proxy set."""
