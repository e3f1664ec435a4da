"""What decides: whom to ask, what, how to weigh and combine the answers, how to teach with them."""
