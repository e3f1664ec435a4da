"""What decides: whom to ask, what, how to weigh and combine the answers, how to teach with them."""

import clients  # noqa: F401  switches usage reporting off before Flower is imported
